"""The plugin as FiftyOne finds it: listed whole, downloaded, beside another one."""

import functools
import http.server
import itertools
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.operators.conftest import PAGE

ROOT = Path(__file__).parents[2]
MANIFEST = yaml.safe_load((ROOT / "fiftyone.yml").read_text())
NAMES = [*MANIFEST["operators"], *MANIFEST["panels"]]


def test_each_operator_has_a_file_and_is_listed():
    files = {path.stem for path in (ROOT / "operators").rglob("*.py")}
    assert files == set(MANIFEST["operators"])


def test_what_is_listed_is_registered_under_its_name(operator):
    from fiftyone.operators.registry import OperatorRegistry

    ours = {o.name for o in OperatorRegistry().list_operators() if o.uri.startswith("@promerge/")}
    assert ours == set(NAMES)
    for name in MANIFEST["operators"]:
        config = operator(name).config
        assert config.label.startswith("ProMerge: "), name
        assert config.icon, name


def test_the_plugin_s_requirements_are_the_package_s():
    listed = (ROOT / "requirements.txt").read_text().split()
    text = (ROOT / "pyproject.toml").read_text()
    declared = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.DOTALL | re.MULTILINE)[1]
    packages = re.findall(r'"([^"]+)"', declared)
    (fiftyone,) = (p.removeprefix("fiftyone") for p in packages if p.startswith("fiftyone"))
    assert listed == [p for p in packages if not p.startswith("fiftyone")]
    assert MANIFEST["fiftyone"]["version"] == fiftyone


def test_no_form_opens_red(operator, context, segmented):
    for name in MANIFEST["operators"]:
        form = operator(name).resolve_input(context(segmented, **PAGE))
        if form is None:  # it only asks where something is shown
            continue
        required = [key for key, each in form.type.properties.items() if each.required]
        assert required == [], name
        assert not form.invalid or form.error_message, name


def test_what_takes_long_is_scheduled_by_default_where_the_app_can_schedule(operator):
    long = {n for n in MANIFEST["operators"] if operator(n).config.allow_delegated_execution}
    assert {"segment_instances", "tune", "train_detector", "export_pseudo_labels"} <= long
    assert long.isdisjoint({"accept", "reject", "undo", "stop_runs", "delete_run"})
    for name in MANIFEST["operators"]:
        config = operator(name).config
        assert config.default_choice_to_delegated == (name in long), name
        assert config.allow_immediate_execution, name


def test_the_browser_lists_operators_in_the_order_of_the_work(operator):
    order = ["segment_", "review_", "group_", "name_", "evaluate_", "export_", "train_", "predict"]
    places = [next(i for i, n in enumerate(NAMES) if n.startswith(each)) for each in order]
    assert places == sorted(places)


def test_skills_are_found_and_what_they_call_exists(fo, repository, tmp_path, monkeypatch):
    skills = pytest.importorskip("fiftyone.plugins.skills", reason="FiftyOne 1.22 and later")
    shutil.copytree(repository, tmp_path / "promerge")
    monkeypatch.setattr(fo.config, "plugins_dir", str(tmp_path))
    found = skills.list_skills(plugin="@promerge/promerge")
    assert [skill.name for skill in found] == MANIFEST["skills"]
    assert all(skill.description and skill.category for skill in found)


LIST = """
import sys, fiftyone as fo, fiftyone.operators as foo
fo.config.plugins_dir = sys.argv[1]
if len(sys.argv) > 2:
    import fiftyone.plugins as fop
    print("downloaded", sorted(fop.download_plugin(sys.argv[2])))
print("found", sorted(o.uri for o in foo.list_operators(builtin=False) if "@promerge/" in o.uri))
import promerge_fo
print("library", promerge_fo.__file__)
"""


def listed(folder: Path, *more: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", LIST, str(folder), *more], cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Failed to register" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """What the repository holds, without what was built in it."""
    copy = tmp_path_factory.mktemp("download") / "promerge-fo"
    kept = ("plugin", "operators", "skills", "promerge_fo")
    for folder in kept:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    for file in ("fiftyone.yml", "requirements.txt", "manifest.json", "__init__.py"):
        shutil.copy(ROOT / file, copy / file)
    return copy


FORMS = """
import sys, fiftyone as fo, fiftyone.operators as foo
from fiftyone.operators.executor import ExecutionContext
fo.config.plugins_dir = sys.argv[1]
box = fo.Detection(label="fg", bounding_box=[0.2, 0.2, 0.5, 0.5], confidence=0.5)
dataset = fo.Dataset()
for k in range(10):
    truth, found = (fo.Detections(detections=[box.copy()]) for _ in range(2))
    dataset.add_sample(fo.Sample(filepath=f"/{k}.png", ground_truth=truth, promerge=found))
operators = [o for o in foo.list_operators(builtin=False) if "@promerge/" in o.uri]
assert "torch" not in sys.modules, "torch comes with FiftyOne"
for operator in operators:
    request = {"dataset_name": dataset.name, "params": {}}
    operator.resolve_input(ExecutionContext(operator_uri=operator.uri, request_params=request))
    slow = {"torch", "timm", "promerge_fo.pipeline"} & sys.modules.keys()
    assert not slow, (operator.name, slow)
dataset.delete()
print("drawn", len(operators))
"""


def test_forms_are_drawn_without_what_is_slow_to_import(fo, repository, tmp_path):
    shutil.copytree(repository, tmp_path / "plugins" / "promerge")
    done = subprocess.run(
        [sys.executable, "-c", FORMS, str(tmp_path / "plugins")], cwd=tmp_path,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"drawn {len(NAMES)}" in done.stdout


def test_it_is_downloaded_as_an_archive(fo, repository, tmp_path):
    archive = tmp_path / "served" / "promerge-fo.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as out:
        for path in repository.rglob("*"):
            out.write(path, path.relative_to(repository.parent))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=archive.parent)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    try:
        url = f"http://127.0.0.1:{server.server_port}/{archive.name}"
        said = listed(plugins, url, cwd=tmp_path)
    finally:
        server.shutdown()
    assert "downloaded ['@promerge/promerge']" in said
    for name in NAMES:
        assert f"'@promerge/promerge/{name}'" in said


def test_two_plugins_of_one_organisation_do_not_disturb_each_other(fo, repository, tmp_path):
    plugins = tmp_path / "plugins"
    shutil.copytree(repository, plugins / "promerge")
    other = plugins / "other"
    (other / "operators").mkdir(parents=True)
    (other / "fiftyone.yml").write_text(
        'name: "@promerge/other"\npy_entry: __init__.py\noperators:\n  - segment_instances\n'
    )
    (other / "__init__.py").write_text(
        "from .operators.segment_instances import Other\n"
        "def register(plugin):\n    plugin.register(Other)\n"
    )
    (other / "operators" / "segment_instances.py").write_text(
        "import fiftyone.operators as foo\n"
        "class Other(foo.Operator):\n"
        "    @property\n"
        "    def config(self):\n"
        "        return foo.OperatorConfig(name='segment_instances', label='Other')\n"
    )
    said = listed(plugins, cwd=tmp_path)
    for name in NAMES:
        assert f"'@promerge/promerge/{name}'" in said
    assert "'@promerge/other/segment_instances'" in said


@pytest.fixture
def path_inputs(operator, segmented, monkeypatch):
    """Opens the form of an operator; returns its property, its parameters and names of paths."""
    from fiftyone.operators.executor import ExecutionContext

    def open_form(name, **params):
        made, names = operator(name), []
        forms = sys.modules[made.execute.__module__.rpartition(".")[0] + ".forms"]
        real = forms.Form.path

        def path(self, name, *arguments, **options):
            names.append(name)
            return real(self, name, *arguments, **options)

        monkeypatch.setattr(forms.Form, "path", path)
        request = {
            "dataset_name": segmented.name,
            "view": [],
            "params": params,
            "current_sample": segmented.first().id,
        }
        ctx = ExecutionContext(operator_uri=made.uri, request_params=request)
        found = made.resolve_input(ctx)
        monkeypatch.undo()
        return found, ctx.params, names

    return open_form


def test_every_path_is_taken_as_text_as_path_and_from_the_explorer(path_inputs, tmp_path):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"")
    text, seen = str(file), set()
    good = itertools.cycle([text, file, {"absolute_path": text}])
    bad = itertools.cycle([(5, "int"), ([text], "list"), (True, "bool"), (b"/x", "bytes")])
    for operator in MANIFEST["operators"]:
        _, _, names = path_inputs(operator)
        if not names:
            continue
        seen |= {(operator, name) for name in names}
        _, params, _ = path_inputs(operator, **{name: next(good) for name in names})
        assert [params[name] for name in names] == [text] * len(names), operator
        wrong = {name: next(bad) for name in names}
        found, params, _ = path_inputs(operator, **{name: wrong[name][0] for name in names})
        assert found.invalid, operator
        for name, (value, kind) in wrong.items():
            assert f"{value!r} ({kind}) is no path" in found.error_message, (operator, name)
            assert params[name] == value  # not mended unseen
    assert seen >= {
        ("segment_instances", "checkpoint"),
        ("explain", "checkpoint"),
        ("show_run", "checkpoint"),
        ("tune", "checkpoint"),
        ("tune", "folder"),
        ("compare_fields", "folder"),
        ("export_pseudo_labels", "path"),
        ("import_predictions", "path"),
        ("import_predictions", "annotations"),
        ("train_detector", "annotations"),
        ("train_detector", "image_root"),
        ("train_detector", "output"),
        ("train_detector", "weights"),
        ("predict", "detector"),
        ("predict", "path"),
    }


def test_python_gives_paths_as_it_likes(operator, segmented, tmp_path):
    from fiftyone.operators.executor import ExecutionError

    export = operator("export_pseudo_labels")
    for path in (tmp_path / "a.json", str(tmp_path / "b.json")):
        assert export(segmented, path=path).result["path"] == str(path)
        assert Path(path).is_file()
    with pytest.raises(ExecutionError, match=r"Where to: 5 \(int\) is no path: give a text"):
        export(segmented, path=5)
