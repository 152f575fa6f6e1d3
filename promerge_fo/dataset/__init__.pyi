from .classes.embeddings import (
    Embeddings as Embeddings,
)
from .classes.embeddings import (
    EmbedReport as EmbedReport,
)
from .classes.embeddings import (
    embed_instances as embed_instances,
)
from .classes.embeddings import (
    read_embeddings as read_embeddings,
)
from .classes.groups import (
    Group as Group,
)
from .classes.groups import (
    group_instances as group_instances,
)
from .classes.groups import (
    list_groups as list_groups,
)
from .classes.groups import (
    merge_groups as merge_groups,
)
from .classes.groups import (
    split_group as split_group,
)
from .classes.groups import (
    view_group as view_group,
)
from .classes.maps import map_instances as map_instances
from .classes.names import (
    Nearest as Nearest,
)
from .classes.names import (
    list_names as list_names,
)
from .classes.names import (
    name_groups as name_groups,
)
from .classes.names import (
    name_instances as name_instances,
)
from .classes.names import (
    nearest_unnamed as nearest_unnamed,
)
from .classes.names import (
    propagate_names as propagate_names,
)
from .classes.names import (
    undo_names as undo_names,
)
from .classes.names import (
    view_nearest as view_nearest,
)
from .decided import DecisionsLostError as DecisionsLostError
from .decided import restore_decisions as restore_decisions
from .evaluation.benchmark_sets import load_benchmark as load_benchmark
from .evaluation.benchmark_sets import load_coco as load_coco
from .evaluation.comparison import (
    Comparison as Comparison,
)
from .evaluation.comparison import (
    compare_fields as compare_fields,
)
from .evaluation.comparison import (
    samples_by_gain as samples_by_gain,
)
from .evaluation.evaluate import (
    InstanceResults as InstanceResults,
)
from .evaluation.evaluate import (
    evaluate_instances as evaluate_instances,
)
from .evaluation.evaluate import (
    list_evaluations as list_evaluations,
)
from .exchange.entries import ImportReport as ImportReport
from .exchange.export import export_pseudo_labels as export_pseudo_labels
from .exchange.imports import import_predictions as import_predictions
from .experiments.ablation import ablate as ablate
from .experiments.ablation_result import Ablation as Ablation
from .experiments.settings import grid as grid
from .experiments.settings import search_space as search_space
from .experiments.settings import sweep as sweep
from .experiments.tuning import tune as tune
from .experiments.tuning_result import Tuning as Tuning
from .labels import mask_of as mask_of
from .labels import masks_of as masks_of
from .labels import to_detections as to_detections
from .provenance import delete_run as delete_run
from .provenance import list_runs as list_runs
from .provenance import load_run as load_run
from .review.agreement import measure_agreement as measure_agreement
from .review.decisions import (
    Progress as Progress,
)
from .review.decisions import (
    accept as accept,
)
from .review.decisions import (
    decide as decide,
)
from .review.decisions import (
    enable_annotation as enable_annotation,
)
from .review.decisions import (
    list_labels as list_labels,
)
from .review.decisions import (
    prepare_review as prepare_review,
)
from .review.decisions import (
    reject as reject,
)
from .review.decisions import (
    review_progress as review_progress,
)
from .review.decisions import (
    undo as undo,
)
from .review.histograms import (
    Histogram as Histogram,
)
from .review.histograms import (
    review_histograms as review_histograms,
)
from .review.histograms import (
    select_between as select_between,
)
from .review.queue import review_queue as review_queue
from .review.updates import label_path as label_path
from .runs.model import (
    ProMergeModel as ProMergeModel,
)
from .runs.model import (
    load_model as load_model,
)
from .runs.model import (
    model_of_run as model_of_run,
)
from .runs.segment import segment_dataset as segment_dataset
from .samples import require_images as require_images
from .sizes import correct_sizes as correct_sizes
