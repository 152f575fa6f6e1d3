"""Operators that evaluate and compare."""

import asyncio

import pytest

from tests.app.page import wait_until
from tests.operators.conftest import PAGE


def test_a_field_is_evaluated(operator, form, segmented):
    from promerge_fo.dataset.evaluation.evaluate import evaluate_instances, list_evaluations

    evaluate = operator("evaluate_instances")
    offered = form(evaluate, segmented)
    assert not offered.invalid
    assert offered.type.properties["gt_field"].default == "ground_truth"
    evaluate(segmented, pred_field="unfiltered", eval_key="mine")
    stored = list_evaluations(segmented)["mine"]
    expected = evaluate_instances(segmented, "unfiltered")
    assert stored.figures == expected.coco_metrics
    assert stored.images == 4
    assert stored.curves["0.50"] == expected.precision[0][0].tolist()
    assert segmented.has_field("mine_tp") and stored.class_figures == {}
    result = evaluate(segmented, pred_field="unfiltered", eval_key="mine", classwise=True).result
    names = set(segmented.distinct("ground_truth.detections.label"))
    assert list_evaluations(segmented)["mine"].class_figures == result["classes"]
    assert result["classes"].keys() == names != set()


def test_a_page_that_has_not_shown_the_defaults_yet_runs_with_them(operator, segmented):
    from fiftyone.operators.executor import execute_or_delegate_operator

    from promerge_fo.dataset.evaluation.evaluate import list_evaluations

    request = {"dataset_name": segmented.name, "params": {}, **PAGE}
    asyncio.run(execute_or_delegate_operator(operator("evaluate_instances").uri, request))
    wait_until(lambda: list(list_evaluations(segmented)) == ["eval_promerge"], 60)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"pred_field": "promerge", "gt_field": "promerge"}, "are the same field"),
        ({"eval_key": "no name"}, "is no name for a run"),
        ({"eval_key": "promerge"}, "There is a field 'promerge'"),
    ],
)
def test_wrong_input_is_refused_with_words(operator, form, segmented, params, words):
    assert words in form(operator("evaluate_instances"), segmented, **params).error_message
    with pytest.raises(Exception, match=words):
        operator("evaluate_instances")(segmented, **params)
    assert segmented.list_evaluations() == []


def test_unknown_parameters_are_refused_from_python(operator, segmented):
    with pytest.raises(
        TypeError, match="evaluate_instances takes no key; it takes classwise, eval_key"
    ):
        operator("evaluate_instances")(segmented, key="mine")


def test_fields_are_compared(operator, form, segmented, tmp_path):
    from promerge_fo.dataset.evaluation.evaluate import list_evaluations

    compare = operator("compare_fields")
    offered = form(compare, segmented)
    assert offered.type.properties["fields"].default == ["unfiltered"]
    compare(segmented, folder={"absolute_path": str(tmp_path)})
    assert set(list_evaluations(segmented)) == {"eval_promerge", "eval_unfiltered"}
    report = (tmp_path / "promerge-comparison" / "report.md").read_text()
    assert "unfiltered against promerge" in report
    assert "to compare" in form(compare, segmented, fields=[]).error_message
    segmented.delete_sample_field("unfiltered")
    assert "this dataset has the fields" in form(compare, segmented).error_message


@pytest.mark.parametrize(
    "name",
    [
        "compare_fields",
        "evaluate_instances",
        "export_pseudo_labels",
        "import_predictions",
        "segment_instances",
        "show_run",
        "tune",
    ],
)
def test_forms_say_that_patches_stand_for_their_dataset(operator, form, segmented, name):
    asked = form(operator(name), segmented.to_patches("promerge").limit(1)).type.properties
    assert asked["target"].view.label == "The images of the whole dataset"
    assert "view_target" not in asked
    asked = form(operator(name), segmented.limit(1)).type.properties
    assert "target" not in asked
    assert asked["view_target"].type.values == ["DATASET", "CURRENT_VIEW"]


def test_where_patches_are_shown_the_dataset_is_measured_and_exported(
    operator, form, segmented, tmp_path
):
    from promerge_fo.dataset.evaluation.evaluate import list_evaluations

    page = segmented.to_patches("promerge").limit(1)
    operator("evaluate_instances")(page, pred_field="unfiltered")
    operator("compare_fields")(page, baseline="promerge")
    images = {key: config.images for key, config in list_evaluations(segmented).items()}
    assert images == {"eval_unfiltered": 4, "eval_promerge": 4}
    path = str(tmp_path / "labels.json")
    export = operator("export_pseudo_labels")
    exported = export(page, label_field="unfiltered", path=path, min_area=0.0).result
    assert exported["images"] == 4
    assert exported["annotations"] == segmented.count("unfiltered.detections")
    offered = form(operator("tune"), page, folds=2).type.properties["cost"].view.label
    assert offered.endswith(" settings on 4 images with objects")


def test_frames_and_slices_are_measured_as_images(fo, operator, form, photographs):
    from promerge_fo.dataset.evaluation.evaluate import list_evaluations

    label = fo.Detection(label="fg", bounding_box=[0.1, 0.1, 0.5, 0.5])
    labels = {name: fo.Detections(detections=[label.copy()]) for name in ("found", "truth")}
    video, grouped = fo.Dataset(), fo.Dataset()
    sample = fo.Sample(filepath="clip.mp4")
    sample.frames[1] = fo.Frame(filepath=photographs[0], **labels)
    video.add_sample(sample)
    grouped.add_group_field("group", default="left")
    left = fo.Group().element("left")
    grouped.add_sample(fo.Sample(filepath=photographs[0], group=left, **labels))
    for view in (video.to_frames(), grouped.select_group_slices("left")):
        evaluate = operator("evaluate_instances")
        assert not form(evaluate, view, view_target="CURRENT_VIEW").invalid
        evaluate(view, gt_field="truth")
        (evaluation,) = list_evaluations(view).values()
        assert evaluation.figures["bbox"]["AP"] == pytest.approx(100)
    video.delete()
    grouped.delete()


def test_samples_are_ordered_by_what_one_evaluation_finds_more(segmented):
    from promerge_fo.dataset.evaluation.comparison import compare_fields, samples_by_gain
    from promerge_fo.dataset.evaluation.evaluate import evaluate_instances

    for field in ("promerge", "unfiltered"):
        evaluate_instances(segmented, field, eval_key=f"eval_{field}")
    losses = samples_by_gain(segmented, "eval_unfiltered", "eval_promerge", losses=True)
    gains = samples_by_gain(segmented, "eval_promerge", "eval_unfiltered")
    assert losses.values("id") == gains.values("id")
    recall = dict(zip(segmented.values("id"), segmented.values("eval_unfiltered_tp"), strict=True))
    objects = dict(zip(segmented.values("id"), segmented.values("eval_promerge_tp"), strict=True))
    expected = sorted(
        (i for i in recall if recall[i] < objects[i]), key=lambda i: recall[i] / objects[i]
    )
    assert expected
    assert losses.values("id") == expected
    comparison = compare_fields(segmented, ["promerge", "unfiltered"], resamples=10)
    assert set(comparison.losses("unfiltered").values("id")) >= set(expected)


def test_a_delegated_evaluation_runs(operator, launch, segmented):
    from promerge_fo.dataset.evaluation.evaluate import list_evaluations

    result = operator("evaluate_instances")(segmented, delegate=True, eval_key="later")
    assert result.delegated
    assert list_evaluations(segmented) == {}
    launch(result)
    segmented.reload()
    assert list(list_evaluations(segmented)) == ["later"]
