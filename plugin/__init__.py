"""Registration of the plugin's operators and panels.

FiftyOne executes this file whenever it reads its plugins, so nothing heavy is imported here. The
repository's root joins this module's own search path: ``.operators`` is then this plugin's folder
and no other's, whichever plugins are loaded beside it. An installed ``promerge_fo`` is used where
there is one, otherwise the one in the repository.
"""

import importlib.util
import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[1])
__path__.append(ROOT)
if importlib.util.find_spec("promerge_fo") is None:
    sys.path.append(ROOT)

from .compare_panel import ComparePanel  # noqa: E402
from .operators.accept import Accept  # noqa: E402
from .operators.compare_fields import CompareFields  # noqa: E402
from .operators.delete_run import DeleteRun  # noqa: E402
from .operators.evaluate_instances import EvaluateInstances  # noqa: E402
from .operators.explain import Explain  # noqa: E402
from .operators.export_pseudo_labels import ExportPseudoLabels  # noqa: E402
from .operators.import_predictions import ImportPredictions  # noqa: E402
from .operators.predict import Predict  # noqa: E402
from .operators.reject import Reject  # noqa: E402
from .operators.review_instances import ReviewInstances  # noqa: E402
from .operators.segment_instances import SegmentInstances  # noqa: E402
from .operators.show_run import ShowRun  # noqa: E402
from .operators.stop_runs import StopRuns  # noqa: E402
from .operators.train_detector import TrainDetector  # noqa: E402
from .operators.tune import Tune  # noqa: E402
from .operators.undo import Undo  # noqa: E402
from .review_panel import ReviewPanel  # noqa: E402
from .sample_panel import SamplePanel  # noqa: E402
from .training_panel import TrainingPanel  # noqa: E402

OPERATORS = (
    SegmentInstances,
    StopRuns,
    ReviewInstances,
    Accept,
    Reject,
    Undo,
    EvaluateInstances,
    CompareFields,
    Tune,
    ExportPseudoLabels,
    TrainDetector,
    Predict,
    ImportPredictions,
    Explain,
    ShowRun,
    DeleteRun,
)
PANELS = (ReviewPanel, SamplePanel, ComparePanel, TrainingPanel)


def register(plugin):  # type: ignore[no-untyped-def]
    """Called by FiftyOne with the plugin that operators and panels are added to."""
    for each in (*OPERATORS, *PANELS):
        plugin.register(each)
