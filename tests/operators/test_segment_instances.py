"""The operator that segments, from its form and from Python."""

import subprocess
import sys
import time

import pytest

from tests.needs import need_command
from tests.operators.conftest import PAGE
from tests.scenes import write_clips

RUN = {"encoder": "texture", "show_parameters": True, "promerge_default": {"image_size": 96}}


@pytest.mark.parametrize(
    ("media_type", "words"), [("group", "none of its slices has images"), ("3d", "3d samples")]
)
def test_what_has_no_images_is_refused_with_what_to_select(
    operator, form, fo, dataset, media_type, words
):
    if media_type == "group":
        dataset.add_group_field("group", default="left")
        dataset.add_group_slice("left", "point-cloud")
    else:
        dataset.add_sample(fo.Sample(filepath="/nowhere/scene.fo3d"))
    assert dataset.media_type == media_type
    made = form(operator("segment_instances"), dataset)
    assert made.invalid
    assert list(made.type.properties) == ["refused"]
    assert words in made.error_message


@pytest.fixture
def images(fo, dataset, photographs):
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    return dataset


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"label_field": "no name"}, "'no name' is no name for a field"),
        ({"label_field": "filepath"}, "The field 'filepath' holds"),
        ({"label_field": "other"}, "Tick the box"),
        (
            {"show_parameters": True, "promerge_paper": {"tau_b": 3.0}, "preset": "paper"},
            "tau_b is 3.0, but must lie in [-1, 1]",
        ),
    ],
)
def test_wrong_input_is_refused_with_words(operator, form, images, fo, params, words):
    images.set_values("other", [fo.Detections()] * 4)
    segment = operator("segment_instances")
    assert words in form(segment, images, **params).error_message
    assert not form(segment, images, label_field="other", replace=True).invalid
    with pytest.raises(Exception, match=words.replace("[", r"\[")):
        segment(images, **{"encoder": "texture", **params})


def test_the_form_has_every_parameter_once_as_the_preset_has_it(operator, form, images):
    from promerge_fo.config import METHODS

    segment = operator("segment_instances")
    for method, kind in METHODS.items():
        for preset in kind.presets:
            params = {"method": method, "preset": preset, "show_parameters": True}
            made = form(segment, images, **params)
            assert not made.invalid
            group = made.type.properties[f"{method}_{preset}"].type.properties
            asked = {n: p.default for n, p in group.items() if not n.startswith("heading_")}
            assert asked == kind.preset(preset).to_dict()


def test_every_method_runs(operator, images):
    from promerge_fo.config import METHODS
    from promerge_fo.dataset.provenance import list_runs, load_run

    for method in METHODS:
        parameters = {"show_parameters": True, f"{method}_default": {"image_size": 96}}
        operator("segment_instances")(
            images, method=method, encoder="texture", label_field=method, **parameters
        )
    assert [load_run(images, key)["method"] for key in list_runs(images)] == list(METHODS)


def test_masks_are_made_from_python_with_the_form_s_settings(operator, form, images):
    from promerge_fo.dataset.provenance import last_rate, list_runs, load_run

    segment = operator("segment_instances")
    parameters = {"image_size": 96, "stride": 6}
    segment(images.limit(3), **{**RUN, "promerge_default": parameters})
    (key,) = list_runs(images)
    record = load_run(images, key)
    assert record["images"] == 3
    assert (record["config"]["stride"], record["config"]["image_size"]) == (6, 96)
    assert len(images.exists("promerge")) == 3
    assert last_rate("promerge", "texture") == record["images_per_second"]
    cost = form(segment, images, encoder="texture").type.properties["cost"].view.label
    assert cost.startswith("4 images; about ")


def test_parameters_are_given_flat_from_python_and_the_result_says_what_was_done(operator, images):
    from promerge_fo.dataset.provenance import load_run

    segment = operator("segment_instances")
    result = segment(images, encoder="texture", tau_b=0.3, image_size=96).result
    assert result["counts"] == images.count_values("promerge.status")
    assert result["masks"] == images.count("promerge.detections")
    config = load_run(images, result["run"])["config"]
    assert (config["tau_b"], config["image_size"]) == (0.3, 96)
    with pytest.raises(TypeError, match="takes no tau_x; it takes .*stride.*tau_b"):
        segment(images, encoder="texture", tau_x=0.3)
    with pytest.raises(Exception, match="tau_b"):
        segment(images, encoder="texture", tau_b=7)


def test_what_refuses_the_form_is_said_and_not_that_it_takes_nothing(operator, fo, dataset):
    dataset.add_group_field("group")
    cloud = fo.Group().element("cloud")
    dataset.add_sample(fo.Sample(filepath="/nowhere/a.pcd", group=cloud))
    with pytest.raises(Exception, match="holds groups, and .* none of its slices has images"):
        operator("segment_instances")(dataset, encoder="texture")


def test_slices_of_groups_are_chosen_by_their_names(operator, form, fo, dataset, photographs):
    dataset.add_group_field("group", default="cloud")
    group = fo.Group()
    files = {"cloud": "/nowhere/a.pcd", "left": photographs[0], "right": photographs[1]}
    dataset.add_samples(
        [fo.Sample(filepath=file, group=group.element(name)) for name, file in files.items()]
    )
    segment = operator("segment_instances")
    made = form(segment, dataset, encoder="texture")
    assert not made.invalid
    assert made.type.properties["group_slice"].type.values == ["left", "right"]
    result = segment(dataset, group_slice="right", **RUN).result
    assert sum(result["counts"].values()) == 1
    assert dataset.select_group_slices("left").values("promerge.status") == [None]
    cost = form(segment, dataset, group_slice="right", **RUN).type.properties["cost"]
    assert cost.view.label.startswith("0 images of 1, as 1 are done")


def test_videos_are_segmented_and_frames_are_counted(operator, form, fo, dataset, tmp_path):
    need_command("ffmpeg", "apt-get install ffmpeg")
    dataset.add_samples([fo.Sample(filepath=path) for path in write_clips(tmp_path, 2, 3)])
    segment = operator("segment_instances")

    def cost(samples):
        made = form(segment, samples, encoder="texture")
        assert not made.invalid
        return made.type.properties["cost"].view.label

    assert cost(dataset).startswith("at least 2 frames; ")
    dataset.compute_metadata()
    assert cost(dataset).startswith("6 frames; ")
    result = segment(dataset.limit(1), encoder="texture").result
    assert sum(result["counts"].values()) == 3
    assert "3 frames in" in result["outcome"]
    assert cost(dataset).startswith("3 frames of 6, as 3 are done; about ")
    assert "frames a second" in cost(dataset)
    result = segment(dataset, encoder="texture").result
    assert (sum(result["counts"].values()), result["skipped"]) == (3, 3)
    made = form(segment, dataset, encoder="texture")
    assert "'frames.promerge'" in made.type.properties["overwrites"].view.label
    refused = form(operator("evaluate_instances"), dataset)
    assert "to_frames(sample_frames=True)" in refused.error_message


def test_the_estimate_is_of_what_is_left_and_of_images_that_could_be_read(
    operator, form, images, fo, tmp_path
):
    from promerge_fo.dataset.provenance import last_rate

    def cost(**params):
        return form(segment, images, encoder="texture", **params).type.properties["cost"].view.label

    segment = operator("segment_instances")
    segment(images, encoder="texture", label_field="all")
    rate = last_rate("promerge", "texture")
    broken = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in broken:
        path.write_text("no image")
    added = images.add_samples([fo.Sample(filepath=str(path)) for path in broken])
    segment(images.select(added), encoder="texture", label_field="all")
    assert last_rate("promerge", "texture") == rate
    assert cost(label_field="all").startswith("0 images of 6, as 6 are done; 'Do finished")
    assert cost(label_field="all", overwrite=True).startswith("6 images; about ")
    assert cost(label_field="all", retry_failed=True).startswith("2 images of 6, as 4 are done")
    assert cost(label_field="all", preset="official").startswith("6 images; about ")
    assert cost(label_field="other").startswith("6 images; about ")


def test_device_precision_and_resizing_are_the_user_s(operator, form, images):
    from promerge_fo.dataset.provenance import load_run

    segment = operator("segment_instances")
    asked = set(form(segment, images).type.properties)
    assert {"device", "precision", "resize"} <= asked
    given = {"encoder": "texture", "image_size": 96, "device": "cpu", "resize": "aspect"}
    record = load_run(images, segment(images, **given).result["run"])
    assert record["encoder"]["resize"] == "aspect"
    assert record["device"].startswith("cpu")


def test_facet_block_and_calibration_are_asked_for(operator, form, images, tmp_path):
    import timm
    import torch

    from promerge_fo.dataset.provenance import list_runs, load_run

    torch.manual_seed(0)
    path = tmp_path / "tiny.pth"
    torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict(), path)
    segment = operator("segment_instances")
    assert "facet" not in form(segment, images, encoder="texture").type.properties
    asked = {"facet", "block", "no_calibrate"}
    properties = form(segment, images, encoder="vit_tiny_patch16_224").type.properties
    assert asked <= set(properties)
    for given in ({"preset": "official"}, {"method": "maskcut"}):
        assert asked - set(form(segment, images, **given).type.properties) == {"no_calibrate"}

    shown = {**properties_of(form, segment, images), "image_size": 96, "tau_f_bg": 0.7}
    params = {
        "encoder": "vit_tiny_patch16_224",
        "checkpoint": {"absolute_path": str(path)},
        "block": 10,
        "show_parameters": True,
        "promerge_default": shown,
    }
    segment(images, **params, label_field="chosen")
    segment(images, **params, label_field="kept", facet="value", no_calibrate=True)
    chosen, kept = (load_run(images, key) for key in list_runs(images))
    assert chosen["encoder"]["block"] == kept["encoder"]["block"] == 10
    assert chosen["config"]["tau_b"] == chosen["calibration"]["parameters"]["tau_b"]
    assert chosen["config"]["tau_f_bg"] == 0.7  # the only threshold that differs from the preset's
    assert "calibration" not in kept
    assert (kept["encoder"]["facet"], kept["config"]["tau_b"]) == ("value", 0.2)


def properties_of(form, segment, images):
    """All parameters as the form shows them, which the App sends back."""
    made = form(segment, images, show_parameters=True)
    group = made.type.properties["promerge_default"].type.properties
    return {n: p.default for n, p in group.items() if not n.startswith("heading_")}


def test_settings_are_remembered_in_the_app_alone(operator, form, from_app, images):
    import fiftyone.operators as foo

    segment = operator("segment_instances")
    params = {"label_field": "mine", "method": "promerge", "preset": "fast", "batch_size": 3}
    python = {"encoder": "texture", "label_field": "python"}
    foo.execute_operator(segment.uri, {"dataset": images}, params=python)
    assert images.has_field("python")
    assert form(segment, images).type.properties["label_field"].default == "promerge"
    assert from_app(segment, images, **RUN, **params).state == "done"
    properties = form(segment, images).type.properties
    assert properties["label_field"].default == "mine"
    assert properties["preset"].default == "fast"
    assert properties["batch_size"].default == 3
    segment(images, **RUN)
    assert images.has_field("promerge")


def test_parameters_are_remembered_so_that_the_same_form_goes_on(
    operator, from_app, context, images
):
    segment = operator("segment_instances")
    shown = {"show_parameters": True, "promerge_default": {"image_size": 96, "tau_b": 0.15}}
    chosen = {"encoder": "texture", "embed": True, "overwrite": True, "drop_decisions": True}
    assert from_app(segment, images, **shown, **chosen).state == "done"
    ctx = context(images, **PAGE)
    ctx._operator_uri = segment.uri
    properties = segment.resolve_input(ctx).type.properties
    group = properties["promerge_default"].type.properties
    assert (group["image_size"].default, group["tau_b"].default) == (96, 0.15)
    assert properties["embed"].default and properties["show_parameters"].default
    assert not properties["overwrite"].default and not properties["drop_decisions"].default
    assert properties["cost"].view.label.startswith("0 images of 4, as 4 are done")
    assert ctx.params["promerge_default"] == shown["promerge_default"]


def test_the_open_page_is_told_once_that_masks_have_colours_of_their_own(
    operator, from_app, images
):
    segment = operator("segment_instances")
    from_app(segment, images, **RUN, label_field="mine")
    (told,) = from_app.told
    assert told.operator_uri.endswith("set_color_scheme")
    assert told.params == {"color_by": "instance"}
    images.reload()
    assert images.app_config.color_scheme.color_by == "instance"
    from_app(segment, images, **RUN, label_field="another")
    assert from_app.told == []


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (
            {"encoder": "vit_tiny_patch16_225"},
            "there is no timm model 'vit_tiny_patch16_225'; did you mean 'vit_tiny_patch16_224",
        ),
        (
            {"encoder": "vit_tiny_patch16_224", "checkpoint": {"absolute_path": "/no/file.pth"}},
            "Checkpoint: /no/file.pth is no file on the server's machine.",
        ),
    ],
)
def test_encoders_and_weights_that_are_not_there_are_refused(operator, form, images, params, words):
    assert words in form(operator("segment_instances"), images, **params).error_message


def test_an_error_is_shown_and_logged_and_nothing_is_remembered(
    operator, form, from_app, images, tmp_path, caplog
):
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    segment = operator("segment_instances")
    params = {
        "encoder": "vit_tiny_patch16_224",
        "checkpoint": {"absolute_path": str(tmp_path / "broken.pth")},
        "label_field": "broken",
    }
    with caplog.at_level("ERROR", "fiftyone.promerge"):
        record = from_app(segment, images, **params)
    assert record.state == "failed"
    assert "broken.pth" in record.outcome
    assert "ProMerge: segment instances failed" in caplog.text
    with pytest.raises(Exception, match=r"broken\.pth"):
        segment(images, **params)
    assert form(segment, images).type.properties["label_field"].default == "promerge"


def test_weights_are_remembered_with_their_encoder(operator, form, from_app, images, tmp_path):
    import timm
    import torch

    path = tmp_path / "tiny.pth"
    torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict(), path)
    segment = operator("segment_instances")
    params = {"encoder": "vit_tiny_patch16_224", "checkpoint": {"absolute_path": str(path)}}
    others = {"label_field": "new", "method": "promerge", "preset": "default", "facet": "value"}
    assert from_app(segment, images, **params, **others).state == "done"
    properties = form(segment, images).type.properties
    assert properties["encoder"].default == "vit_tiny_patch16_224"
    assert properties["checkpoint"].default == str(path)
    path.unlink()
    assert "tiny.pth is no file" in form(segment, images).error_message


def test_a_run_is_stopped_and_what_is_done_is_kept(operator, from_app, images, fo, photographs):
    from promerge_fo.dataset.provenance import list_runs, load_run

    images.add_samples([fo.Sample(filepath=path) for path in photographs * 200])
    segment = operator("segment_instances")
    params = {**RUN, "batch_size": 1, "label_field": "promerge"}
    record = from_app(segment, images, wait=False, **params)
    second = from_app(segment, images, wait=False, **params, overwrite=True)
    while not record().share:
        assert record().is_open
        time.sleep(0.05)
    assert second().state == "waiting"
    assert operator("stop_runs")(images).result == {"stopped": 2}
    while record().is_open:
        time.sleep(0.05)
    assert record().state == second().state == "stopped"
    assert record().outcome.startswith("Stopped; what was done is kept.")
    assert second().outcome == "Stopped before it began."
    done = len(images.exists("promerge.status"))
    assert 1 <= done < 804
    assert operator("stop_runs")(images).result == {"stopped": 0}

    left = images.match(~fo.ViewField("promerge.status").exists())
    images.delete_samples(left.skip(8))
    result = segment(images, **params).result
    assert (result["skipped"], sum(result["counts"].values())) == (done, 8)
    assert len(images.exists("promerge.status")) == done + 8
    (key,) = list_runs(images)
    whole = load_run(images, key)
    assert (whole["images"], whole["interrupted"]) == (done + 8, False)
    assert whole["instances"] == images.count("promerge.detections")
    assert result["masks"] < whole["instances"]


def test_a_run_elsewhere_is_seen_and_stopped(operator, images, fo, photographs):
    """As a scheduled run, or one of the command line, whose process is another one."""
    from promerge_fo.dataset.runs.status import run_statuses

    images.add_samples([fo.Sample(filepath=path) for path in photographs * 200])
    script = (
        "import sys, fiftyone as fo; from promerge_fo.dataset import load_model, segment_dataset; "
        "model = load_model(encoder='texture'); "
        "print(segment_dataset(fo.load_dataset(sys.argv[1]), model, batch_size=1))"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, images.name], stdout=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while not any(status.done for status in run_statuses(images)):
        assert time.monotonic() < until
        assert other.poll() is None
        time.sleep(0.2)
    assert operator("stop_runs")(images).result == {"stopped": 1}
    said = other.communicate(timeout=120)[0]
    (status,) = run_statuses(images)
    assert status.state == "stopped"
    assert 0 < status.done < 804
    assert said.splitlines()[-1].startswith(f"{status.done} images")


def test_a_delegated_run_makes_the_same_masks(operator, launch, images):
    segment = operator("segment_instances")
    segment(images, **RUN)
    result = segment(images, delegate=True, label_field="later", **RUN)
    assert not images.has_field("later")
    launch(result)
    images.reload()
    boxes = [images.values(f"{name}.detections.bounding_box") for name in ("promerge", "later")]
    assert boxes[0] == boxes[1]
    assert sum(map(len, boxes[0])) >= 2


def test_images_that_failed_are_run_again_alone(operator, form, images, fo, photographs, tmp_path):
    import shutil

    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    images.add_sample(fo.Sample(filepath=str(broken)))
    segment = operator("segment_instances")
    segment(images, **RUN)
    ids = images.values("promerge.detections.id")
    shutil.copy(photographs[0], broken)
    segment(images, **RUN)  # it is finished, as the others are
    assert images.values("promerge.status")[-1] == "failed"
    segment(images, retry_failed=True, **RUN)
    images.reload()
    assert images.values("promerge.status")[-1] == "ok"
    assert images.values("promerge.detections.id")[:-1] == ids[:-1]
    both = form(segment, images, overwrite=True, retry_failed=True, **RUN)
    assert "only those that failed?" in both.error_message


LAUNCH = """
import sys
from bson import ObjectId
from fiftyone.operators.delegated import DelegatedOperationService

service = DelegatedOperationService()
service.execute_operation(service.get(ObjectId(sys.argv[1])))
"""


def label_ids(samples):
    ids, labels = samples.values(["id", "killed.detections.id"])
    return dict(zip(ids, labels, strict=True))


def test_a_delegated_run_that_is_killed_goes_on(operator, launch, images, fo, photographs):
    """As its process dies with the machine; what is queued again does what is left."""
    import signal
    import subprocess
    import sys
    import time

    from fiftyone.operators.delegated import DelegatedOperationService

    from promerge_fo.dataset.runs.status import run_statuses

    images.add_samples([fo.Sample(filepath=path) for path in photographs * 25])
    segment = operator("segment_instances")
    segment(images, label_field="undisturbed", **RUN)
    asked = {"delegate": True, "label_field": "killed", "batch_size": 4, **RUN}
    queued = segment(images, **asked).result["id"]
    process = subprocess.Popen([sys.executable, "-c", LAUNCH, str(queued)])
    done = 0
    while done < 20:
        assert process.poll() is None
        time.sleep(0.05)
        images.reload()
        if images.has_field("killed.run"):
            done = len(images.exists("killed.run"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    images.reload()
    (run,) = images.exists("killed.run").distinct("killed.run")
    before = label_ids(images.exists("killed.run"))
    assert 20 <= len(before) < 104
    service = DelegatedOperationService()
    assert service.get(queued).status.progress is not None  # what the App's page of runs shows
    status = {s.label_field: s for s in run_statuses(images)}["killed"]
    assert (status.run, status.total, status.ended) == (run, 104, None)

    launch(segment(images, **asked))
    images.reload()
    after = label_ids(images)
    assert {k: after[k] for k in before} == before  # kept, not made again
    for part in ("bounding_box", "mask", "confidence", "area"):
        then, now = (images.values(f"{f}.detections.{part}") for f in ("undisturbed", "killed"))
        assert len(then) == len(now) == 104
        if part == "mask":
            then, now = ([[m.tolist() for m in masks] for masks in x] for x in (then, now))
        assert then == now
    status = {s.label_field: s for s in run_statuses(images)}["killed"]
    assert (status.total, status.before, status.done) == (104, len(before), 104 - len(before))
    assert status.state == "finished"
