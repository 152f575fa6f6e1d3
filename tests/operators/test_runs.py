"""Operators that show, repeat and delete runs, and that explain an image."""

import base64

import pytest


def test_a_run_is_shown_and_run_again(operator, form, segmented):
    from promerge_fo.dataset.provenance import list_runs, load_run

    key = list_runs(segmented)[0]
    shown = form(operator("show_run"), segmented, run=key)
    text = shown.type.properties["record"].default
    record = load_run(segmented, key)
    assert record["run_hash"] in text
    assert '"tau_b": 0.2' in text
    assert not shown.invalid
    first = segmented.first()
    before = first.promerge
    first.promerge = None
    first.save()
    operator("show_run")(segmented, run=key)
    again = segmented.first().promerge
    assert [d.bounding_box for d in again.detections] == [d.bounding_box for d in before.detections]
    assert load_run(segmented, key)["images"] == 4


def test_imported_predictions_are_shown_but_not_run_again(operator, form, segmented, tmp_path):
    from promerge_fo.dataset.exchange.imports import import_predictions
    from promerge_fo.dataset.provenance import list_runs, load_run
    from promerge_fo.dataset.runs.model import model_of_run

    path = tmp_path / "results.json"
    path.write_text('[{"image_id": 1, "score": 0.5, "bbox": [0, 0, 10, 10]}]')
    report = import_predictions(segmented, path, "plus", min_score=0.25)
    key = list_runs(segmented)[-1]
    shown = form(operator("show_run"), segmented, run=key)
    text = shown.type.properties["record"].default
    assert report.run in text and '"min_score": 0.25' in text and "results.json" in text
    assert shown.invalid and "import the file again" in shown.error_message
    with pytest.raises(ValueError, match="was imported from results.json"):
        model_of_run(load_run(segmented, key))
    with_encoder = made_here(segmented)
    assert key not in with_encoder and len(with_encoder) == 2


def made_here(dataset) -> list[str]:
    """The runs that the operator "explain" offers."""
    import fiftyone.operators as foo
    from fiftyone.operators.executor import ExecutionContext

    request = {"dataset_name": dataset.name, "current_sample": dataset.first().id, "params": {}}
    explain = foo.get_operator("@promerge/promerge/explain")
    ctx = ExecutionContext(operator_uri=explain.uri, request_params=request)
    return list(explain.resolve_input(ctx).type.properties["run"].type.values)


def test_a_run_is_deleted_with_its_labels_and_no_others(operator, form, segmented):
    from promerge_fo.dataset.provenance import list_runs

    kept, gone = list_runs(segmented)
    assert form(operator("delete_run"), segmented, run=gone).type.properties["gone"] is not None
    result = operator("delete_run")(segmented, run=gone).result
    assert result == {"report": f"{gone} is gone, with the labels of 4 images"}
    assert list_runs(segmented) == [kept]
    assert not segmented.has_field("unfiltered")
    assert segmented.count("promerge.detections") == segmented.count("ground_truth.detections")


def test_labels_of_another_run_in_the_field_stay(segmented):
    from promerge_fo.config import ProMergeConfig
    from promerge_fo.dataset.provenance import delete_run, list_runs
    from promerge_fo.dataset.runs.model import load_model
    from promerge_fo.dataset.runs.segment import segment_dataset

    first = next(key for key in list_runs(segmented) if key.startswith("promerge"))
    other = load_model(config=ProMergeConfig(image_size=96, stride=6), encoder="texture")
    segment_dataset(segmented.limit(1), other, "promerge")
    assert delete_run(segmented, first) == 3
    assert len(segmented.exists("promerge")) == 1
    with pytest.raises(ValueError, match="has no ProMerge run"):
        delete_run(segmented, first)


def test_without_runs_the_forms_say_so(operator, form, fo, dataset, photographs):
    dataset.add_sample(fo.Sample(filepath=photographs[0]))
    for name in ("show_run", "delete_run"):
        refused = form(operator(name), dataset)
        assert refused.invalid
        assert "segment instances first" in refused.error_message


def test_one_image_is_explained(operator, form, segmented):
    import fiftyone.operators as foo

    explain = operator("explain")
    assert "Open an image" in form(explain, segmented).error_message
    result = foo.execute_operator(
        explain.uri,
        {"dataset": segmented, "current_sample": segmented.first().id},
        params={"run": form(operator("show_run"), segmented).type.properties["run"].default},
    ).result
    view = segmented.to_patches("promerge")
    patch = view.first()
    of_patch = foo.execute_operator(
        explain.uri,
        {"view": view, "current_sample": patch.id},
        params={"run": form(operator("show_run"), segmented).type.properties["run"].default},
    ).result
    assert patch.sample_id == segmented.first().id
    assert of_patch == result
    kind, data = result["figure"].split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data)[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_rerun_with_other_weights_is_refused(segmented):
    from promerge_fo.dataset.provenance import list_runs, load_run
    from promerge_fo.dataset.runs.model import model_of_run

    record = load_run(segmented, list_runs(segmented)[0])
    record["encoder"]["weights_sha256"] = "0" * 64
    with pytest.raises(ValueError, match="give the run's weights as checkpoint"):
        model_of_run(record)
