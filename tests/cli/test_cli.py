"""The command: what it does, what it prints, how it ends."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promerge_fo import cli
from promerge_fo.cli import main
from promerge_fo.config import METHODS
from promerge_fo.install import doctor
from tests.cli.options import SMALL, TEXTURE

ROOT = Path(__file__).parents[2]


def test_help_teaches_every_parameter(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["segment", "--help"])
    assert stopped.value.code == 0
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    for method in METHODS.values():
        for record in method.describe():
            assert "--" + record["name"].replace("_", "-") in text
            assert record["meaning"] in text
    # a parameter of several methods is there once, with the value that each gives it
    assert text.count("--min-refined-iou X") == 1
    assert "as above: --image-size (480), --refine (crf), --fill-holes (True)," in text
    assert "as above: --image-size (480), --tau (0.2), --eps (1e-05), --refine (crf)," in text


def test_segment_a_folder_writes_a_dataset_and_coco_json(fo, folder, capsys, tmp_path):
    output = tmp_path / "masks.json"
    assert main(["segment", str(folder), "--output", str(output), *TEXTURE]) == 1
    printed = capsys.readouterr()
    assert "fiftyone app launch photos" in printed.out
    assert "images/s" in printed.err
    dataset = fo.load_dataset("photos")
    assert dataset.persistent
    assert sorted(dataset.values("promerge.status")).count("failed") == 1
    written = json.loads(output.read_text())
    assert len(written["annotations"]) == dataset.count("promerge.detections") > 0
    assert {a["category_id"] for a in written["annotations"]} == {1}


def test_segment_by_another_method(fo, folder, capsys):
    command = ["segment", str(folder), "--method", "maskcut", "--cuts", "2", *TEXTURE]
    assert main([*command, "--preset", "official"]) == 1
    dataset = fo.load_dataset("photos")
    assert not dataset.has_field("promerge")
    assert dataset.count_values("maskcut.status") == {"ok": 4, "failed": 1}
    confidences = dataset.values("maskcut.detections.confidence", unwind=True)
    assert set(confidences) == {1.0}
    assert 4 <= len(confidences) <= 8
    assert main(["segment", "photos", "--method", "tokencut", *TEXTURE]) == 1
    dataset.reload()
    assert dataset.count("tokencut.detections") == 4
    assert dataset.count("maskcut.detections") == len(confidences)


def label_ids(dataset):
    dataset.reload()
    paths, ids = dataset.values(["filepath", "promerge.detections.id"])
    return dict(zip(paths, ids, strict=True))


def test_a_second_run_does_what_is_new(fo, folder, capsys):
    command = ["segment", str(folder), *TEXTURE]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert f"failed: {folder / 'broken.jpg'} is no" in said
    assert "1 images failed; --retry-failed runs them again" in said
    dataset = fo.load_dataset("photos")
    ids = label_ids(dataset)
    assert main(command) == 1  # nothing is left
    assert "5 images were done before" in capsys.readouterr().out
    assert label_ids(dataset) == ids

    Image.new("RGB", (30, 40)).save(folder / "new.png")
    assert main(command) == 1
    assert "5 images were done before" in capsys.readouterr().out
    again = label_ids(dataset)
    assert len(again) == 6
    assert {path: again[path] for path in ids} == ids


def test_single_images_are_segmented_and_no_others(fo, folder, tmp_path, capsys):
    first, *_, last = sorted(set(folder.iterdir()) - {folder / "broken.jpg"})
    output = tmp_path / "masks.json"
    assert (
        main(["segment", str(last), str(last), str(first), "--output", str(output), *TEXTURE]) == 0
    )
    dataset = fo.load_dataset("photos")
    assert dataset.persistent
    assert dataset.values("filepath") == [str(last), str(first)]
    shown = json.loads(output.read_text())["images"]
    assert [image["file_name"] for image in shown] == [last.name, first.name]
    ids = label_ids(dataset)

    other = sorted(set(folder.iterdir()) - {folder / "broken.jpg"})[1]
    assert main(["segment", str(other), *TEXTURE]) == 0
    assert set(label_ids(dataset)) == {str(first), str(last), str(other)}
    assert main(["segment", str(folder), *TEXTURE]) == 1  # the rest
    assert "3 images were done before" in capsys.readouterr().out
    again = label_ids(dataset)
    assert len(again) == 5
    assert {path: again[path] for path in ids} == ids

    assert main(["segment", str(first), str(folder), *TEXTURE]) == 2
    assert "is no file; give image files, or else one folder or" in capsys.readouterr().err
    apart = tmp_path / "apart" / first.name
    apart.parent.mkdir()
    apart.write_bytes(first.read_bytes())
    assert main(["segment", str(apart), "--name", "photos", *TEXTURE]) == 2
    assert "of other images than those in" in capsys.readouterr().err


def test_failed_images_are_run_again_alone(fo, folder, capsys):
    command = ["segment", str(folder), *TEXTURE]
    broken = folder / "00.jpg"  # among the first three
    (folder / "broken.jpg").rename(broken)
    assert main([*command, "--limit", "3"]) == 1
    dataset = fo.load_dataset("photos")
    statuses = dataset.values("promerge.status")
    assert (statuses[1], statuses[3:]) == ("failed", [None, None])
    ids = label_ids(dataset)
    Image.open(folder / "0.png").save(broken)
    capsys.readouterr()
    assert main([*command, "--retry-failed"]) == 0
    assert "failed" not in capsys.readouterr().err
    again = label_ids(dataset)
    statuses[1] = "ok"
    assert dataset.values("promerge.status") == statuses
    assert len(again.pop(str(broken))) > 0
    ids.pop(str(broken))
    assert again == ids
    again = label_ids(dataset)
    assert main([*command, "--retry-failed"]) == 0
    assert label_ids(dataset) == again
    with pytest.raises(SystemExit):
        main([*command, "--retry-failed", "--overwrite"])


def test_other_settings_replace_the_masks_and_say_so(fo, folder, caplog):
    command = ["segment", str(folder), *TEXTURE]
    assert main(command) == 1
    caplog.clear()
    assert main([*command, "--tau-b", "0.3"]) == 1
    (line,) = [r.getMessage() for r in caplog.records if "other settings" in r.getMessage()]
    dataset = fo.load_dataset("photos")
    (run,) = dataset.count_values("promerge.run")
    assert re.match(
        r"the field 'promerge' holds labels of other settings \(images: 5 of run ", line
    )
    assert f"run {run} replaces them" in line


def test_a_run_that_overwrites_goes_on_without_doing_all_again(fo, folder):
    command = ["segment", str(folder), *TEXTURE]
    assert main(command) == 1
    dataset = fo.load_dataset("photos")
    (run,) = dataset.count_values("promerge.run")
    ids = label_ids(dataset)
    assert main([*command, "--overwrite", "--limit", "2"]) == 1
    again = label_ids(dataset)
    assert sum(again[path] != ids[path] for path in ids) == 2
    assert dataset.count_values("promerge.run") == {run: 5}


def test_status_tells_how_far_a_run_is(fo, folder, capsys):
    command = ["segment", str(folder), *TEXTURE]
    assert main([*command, "--limit", "3"]) == 0
    assert main(command) == 1
    capsys.readouterr()
    assert main(["status", str(folder), "--failed"]) == 0
    said = capsys.readouterr().out
    assert "field 'promerge', run " in said
    assert "(local, process " in said
    assert " is finished" in said
    assert "done    5 of 5 images (100.0%), 3 of them before" in said
    assert "failed  1; --retry-failed runs them again\n" in said
    assert f"  {folder / 'broken.jpg'} is not an image that" in said
    assert re.search(r"rate    \d+\.\d\d images/s", said)
    assert main(["status", "elsewhere"]) == 2
    assert "there is no dataset 'elsewhere'" in capsys.readouterr().err
    fo.Dataset("photos2")
    assert main(["status", "photos2"]) == 0
    assert capsys.readouterr().out == "photos2 has no run of promerge segment\n"


def test_a_name_of_both_a_folder_and_a_dataset(fo, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert main(["segment", "photos", *TEXTURE]) == 1
    Image.new("RGB", (30, 40)).save(folder / "new.png")
    assert main(["segment", "photos", *TEXTURE]) == 1
    assert len(fo.load_dataset("photos")) == 6
    other = fo.Dataset("pictures")
    other.add_sample(fo.Sample(filepath=str(folder / "0.png")))
    (folder.parent / "pictures").mkdir()
    assert main(["segment", "pictures", *TEXTURE]) == 0
    assert other.count() == 1
    other.reload()
    assert other.values("promerge.status") == ["ok"]


def test_interrupted_runs_keep_what_is_done(fo, folder, capsys, monkeypatch):
    from promerge_fo.dataset.runs.model import ProMergeModel

    real, batches = ProMergeModel.predict_all, []

    def predict_all(self, batch, samples=None):
        if len(batches) == 2:
            raise KeyboardInterrupt
        batches.append(batch)
        return real(self, batch, samples)

    command = ["segment", str(folder), "--batch-size", "1", *TEXTURE]
    with monkeypatch.context() as patched:
        patched.setattr(ProMergeModel, "predict_all", predict_all)
        assert main(command) == 130
    assert "Run the same command again to go on" in capsys.readouterr().out
    dataset = fo.load_dataset("photos")
    assert dataset.exists("promerge").count() == 2
    assert main(command) == 1
    assert "2 images were done before" in capsys.readouterr().out
    dataset.reload()
    assert None not in dataset.values("promerge.status")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["segment", "nowhere"], "'nowhere' is neither a folder nor a dataset"),
        (["segment", "nowhere", "--tau-b", "7"], "tau_b is 7.0, but must lie in [-1, 1]"),
        (
            ["segment", "nowhere", "--method", "maskcut", "--tau-b", "0.2"],
            "--tau-b is no parameter of maskcut; its parameters are: --image-size, --cuts, --tau,",
        ),
        (["segment", "nowhere", "--method", "tokencut", "--preset", "paper"], "no preset 'paper'"),
        (["explain", "missing.png", "--encoder", "texture"], "missing.png"),
    ],
)
def test_errors_are_one_line_and_exit_with_2(fo, capsys, arguments, words):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("promerge: ")
    assert words in error
    assert "Traceback" not in error


def test_an_encoder_that_is_none_is_named(photographs, capsys):
    assert main(["explain", photographs[0], "--encoder", "resnet50"]) == 2
    assert "resnet50" in capsys.readouterr().err


def test_a_missing_file_is_named_without_a_number_of_the_system(fo, folder, capsys):
    assert main(["segment", str(folder), *TEXTURE]) == 1  # an image is broken
    capsys.readouterr()
    assert main(["import", "photos", "/no/results.json", "--label-field", "again"]) == 2
    said = capsys.readouterr().err
    assert "promerge: /no/results.json does not exist; check the path" in said
    assert "Errno" not in said


def test_a_folder_without_images(fo, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("nothing here")
    assert main(["segment", str(tmp_path), *TEXTURE]) == 2
    said = capsys.readouterr().err
    assert "holds no images (looked for .apng" in said
    assert "give a folder that contains images; 1 file was skipped, no images: 1 .txt" in said


def test_a_dataset_of_other_images_is_not_filled(fo, folder, tmp_path, capsys):
    other = fo.Dataset("photos")
    other.add_sample(fo.Sample(filepath=str(tmp_path / "elsewhere.png")))
    assert main(["segment", str(folder), *TEXTURE]) == 2
    assert "choose another name with --name" in capsys.readouterr().err
    assert main(["segment", str(folder), "--name", "mine", "--limit", "2", *TEXTURE]) == 0
    assert fo.load_dataset("mine").exists("promerge").count() == 2


def test_explain_draws_every_step(photographs, tmp_path, capsys):
    output = tmp_path / "steps.png"
    arguments = ["--encoder", "texture", "--image-size", "160", "--output", str(output)]
    assert main(["explain", photographs[0], *arguments]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    drawn = np.asarray(Image.open(output).convert("RGB"))
    assert drawn.shape[0] > 1000
    assert drawn.shape[1] > 1000
    # rows of the figure: each has more than white
    for row in np.array_split(drawn, 4):
        assert (row < 250).any(axis=2).mean() > 0.1


def test_explain_draws_the_levels_of_proposals(photographs, tmp_path):
    from promerge_fo.config import ProMergeConfig
    from promerge_fo.encoder import load_encoder
    from promerge_fo.figures import explain_image, save
    from promerge_fo.pipeline import Pipeline

    config = ProMergeConfig.preset("proposals").replace(image_size=320)
    pipeline = Pipeline(load_encoder("texture", image_size=320), config)
    figure = explain_image(photographs[0], pipeline)
    save(figure, tmp_path / "levels.png")
    last = figure.subfigs[-1]
    assert " masks of the first level; " in last.get_suptitle()
    assert any(axis.get_title().startswith("levels 1 to 5: ") for axis in last.axes)


def test_another_encoder_is_calibrated_before_the_run(fo, folder, weights, caplog):
    from promerge_fo.dataset.provenance import list_runs, load_run

    with caplog.at_level("INFO", "fiftyone.promerge"):
        assert main(["segment", str(folder), *weights, *SMALL, "--tau-f-bg", "0.9"]) == 1
    assert "promerge: calibrated (4 images measured with vit_tiny_patch16_224, " in caplog.text
    dataset = fo.load_dataset("photos")
    (key,) = list_runs(dataset)
    record = load_run(dataset, key)
    chosen = record["calibration"]["parameters"]
    assert record["encoder"]["facet"] == record["calibration"]["encoder"]["facet"]
    assert record["config"]["tau_b"] == chosen["tau_b"]
    assert record["config"]["tau_f_bg"] == 0.9 != chosen["tau_f_bg"]
    caplog.clear()
    with caplog.at_level("INFO", "fiftyone.promerge"):
        assert main(["segment", str(folder), *weights, *SMALL, "--tau-f-bg", "0.9"]) == 1
    assert "promerge: calibrated as before (" in caplog.text
    assert list_runs(dataset) == [key]
    assert main(["segment", str(folder), *weights, *SMALL, "--no-calibrate"]) == 1
    other = load_run(dataset, list_runs(dataset)[-1])
    assert other["config"]["tau_b"] == 0.2
    assert "calibration" not in other


def test_explain_calibrates_on_the_images_beside_it(folder, tmp_path, weights, capsys):
    output = tmp_path / "explained.png"
    arguments = ["explain", str(folder / "0.png"), *weights, *SMALL, "--facet", "query"]
    assert main([*arguments, "--output", str(output)]) == 0
    assert "4 images measured with vit_tiny_patch16_224, facet 'query'" in capsys.readouterr().out
    assert main([*arguments, "--output", str(output), "--no-calibrate"]) == 0
    assert "measured" not in capsys.readouterr().out


@pytest.mark.parametrize(("method", "rows"), [("maskcut", 4), ("tokencut", 2)])
def test_explain_draws_every_cut(photographs, tmp_path, method, rows):
    output = tmp_path / "cuts.png"
    arguments = ["--encoder", "texture", "--image-size", "160", "--output", str(output)]
    assert main(["explain", photographs[0], "--method", method, *arguments]) == 0
    drawn = np.asarray(Image.open(output).convert("RGB"))
    # a row a cut, and one for refinement, each 3.6 inches high
    assert drawn.shape[0] == pytest.approx(3.6 * 110 * rows, abs=2)
    for row in np.array_split(drawn, rows):
        assert (row < 250).any(axis=2).mean() > 0.1


@pytest.mark.parametrize("method", METHODS)
def test_explain_an_image_without_masks(tmp_path, method):
    plain, output = tmp_path / "plain.png", tmp_path / "plain-steps.png"
    Image.new("RGB", (60, 40), (90, 120, 40)).save(plain)
    arguments = ["--encoder", "texture", "--image-size", "160", "--output", str(output)]
    assert main(["explain", str(plain), "--method", method, *arguments]) == 0
    assert output.exists()


def test_demo_falls_back_loudly(fo, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert main(["demo", "--folder", str(tmp_path / "demo")]) == 0
    printed = capsys.readouterr().out
    assert "TEXTURE encoder" in printed
    assert "app launch promerge-demo" in printed
    assert len(re.findall(r"^\w+ +\d+ x \d+ +\d+ ", printed, re.MULTILINE)) == 6
    assert (tmp_path / "demo" / "promerge-demo.png").stat().st_size > 100_000
    from promerge_fo.dataset.labels import mask_of

    dataset = fo.load_dataset("promerge-demo")
    assert set(dataset.values("promerge.status")) == {"ok"}
    coffee = next(s for s in dataset if s.filepath.endswith("coffee.png"))
    outlines = {d.label: mask_of(d, (400, 600)) for d in coffee.ground_truth.detections}
    assert list(outlines) == ["saucer", "cup", "spoon"]
    assert outlines["cup"][200, 300]
    assert not outlines["saucer"][200, 300]  # the cup stands before it
    # with an encoder named there is no choice, and so no fallback
    assert main(["demo", "--folder", str(tmp_path), "--encoder", "vit_tiny_patch16_224.none"]) == 2


def test_doctor_says_what_works_and_names_the_remedy(fo, monkeypatch, tmp_path, capsys):
    from promerge_fo.install import mongod

    monkeypatch.setattr(mongod, "mongod_location", lambda: tmp_path / "mongod")
    monkeypatch.delenv("FIFTYONE_DATABASE_URI", raising=False)
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    for subject in ("Python", "PyTorch", "device", "weights", "CRF", "FiftyOne"):
        assert re.search(rf"^ +(ok|note|problem)  {subject}: ", printed, re.MULTILINE)
    database = printed.split("problem  database: ")[1]
    assert "-> promerge doctor --install-mongod" in database.splitlines()[1]


def test_doctor_notes_a_fiftyone_that_nobody_has_tested(fo, monkeypatch):
    monkeypatch.setattr(fo, "__version__", "99.0.0")
    finding = next(f for f in doctor.examine() if f.subject == "FiftyOne")
    assert finding.state == "note"
    assert "FiftyOne 99.0.0 is newer than" in finding.remedy


def test_plugin_install(fo, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fo.config, "plugins_dir", str(tmp_path / "plugins"))
    assert main(["plugin", "install"]) == 0
    installed = tmp_path / "plugins" / "@promerge" / "promerge"
    assert (installed / "fiftyone.yml").exists()
    stale = installed / "operators" / "stale.py"
    stale.write_text("")
    assert main(["plugin", "install"]) == 0
    assert not stale.exists()
    assert main(["plugin", "install", "--folder", str(tmp_path)]) == 2
    assert "does not hold the plugin" in capsys.readouterr().err


PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("skills/*/*.md"))]


def commands(page: Path) -> list[str]:
    """The lines of a page's blocks of code that begin with ``promerge``, as they go on."""
    blocks = re.findall(r"```\w*\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if re.match(r" *promerge [a-z]", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_that_pages_show_are_taken(page, capsys):
    for command in commands(page):
        _, *arguments = shlex.split(command, comments=True)
        try:
            cli._parser().parse_args(arguments)
        except SystemExit:
            pytest.fail(f"{page.name}: {command}\n{capsys.readouterr().err}")


def test_pages_show_commands():
    assert sum(len(commands(page)) for page in PAGES) > 80
