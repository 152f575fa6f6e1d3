"""The rooms of the house: what may import what, and where FiftyOne's inner workings are touched.

docs/architecture.md has the picture. An import counts wherever it stands: at the top of a file, in
a function, for type checkers alone, relative or absolute. A name that a package passes on counts as
imported from the file that defines it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: What each room may import besides its own files, from the ground up. A single file, such as
#: ``promerge_fo.pipeline``, is listed like a room. The longest name that fits counts.
GROUND = (
    "promerge_fo.files", "promerge_fo.machine", "promerge_fo.words", "promerge_fo.kernels",
    "promerge_fo.parameters", "promerge_fo.progress", "promerge_fo.config", "promerge_fo.flow",
    "promerge_fo.images", "promerge_fo.instances",
    "promerge_fo.diagnosis", "promerge_fo.run_record",
)  # fmt: skip
NUMBERS = ("promerge_fo.config", "promerge_fo.instances", "promerge_fo.kernels")
METHOD = (*GROUND, "promerge_fo.encoder", "promerge_fo.segment", "promerge_fo.refine")
PIPELINE = (*METHOD, "promerge_fo.calibration", "promerge_fo.pipeline", "promerge_fo.figures")
FLOOR = (
    "promerge_fo.dataset.database", "promerge_fo.dataset.faults", "promerge_fo.dataset.labels",
    "promerge_fo.dataset.samples", "promerge_fo.dataset.sizes", "promerge_fo.dataset.stored_labels",
    "promerge_fo.dataset.provenance", "promerge_fo.dataset.decided",
)  # fmt: skip
MAKING = (*PIPELINE, "promerge_fo.annotations", *FLOOR)
MEETING = (*GROUND, "promerge_fo.annotations", "promerge_fo.figures", *FLOOR)
EVERYTHING = ("promerge_fo",)

ROOMS: dict[str, tuple[str, ...]] = {
    **{name: GROUND[:k] for k, name in enumerate(GROUND)},
    "promerge_fo.encoder": GROUND,
    "promerge_fo.segment": NUMBERS,
    "promerge_fo.refine": NUMBERS,
    "promerge_fo.annotations": GROUND,
    "promerge_fo.calibration": METHOD,
    "promerge_fo.pipeline": (*METHOD, "promerge_fo.calibration"),
    "promerge_fo.figures": PIPELINE,
    **{name: (*GROUND, "promerge_fo.annotations", *FLOOR[:k]) for k, name in enumerate(FLOOR)},
    "promerge_fo.dataset.classes": (*MAKING, "promerge_fo.dataset.review"),
    "promerge_fo.dataset.runs": (*MAKING, "promerge_fo.dataset.classes"),
    "promerge_fo.dataset.evaluation": MEETING,
    "promerge_fo.dataset.experiments": (
        *MAKING, "promerge_fo.dataset.classes", "promerge_fo.dataset.runs",
        "promerge_fo.dataset.evaluation",
    ),
    "promerge_fo.dataset.review": MEETING,
    "promerge_fo.dataset.exchange": MEETING,
    "promerge_fo.detector": (*MEETING, "promerge_fo.encoder"),
    "promerge_fo.cluster": (*MAKING, "promerge_fo.dataset.classes", "promerge_fo.dataset.runs"),
    "promerge_fo.demo": (*MAKING, "promerge_fo.dataset"),
    "promerge_fo.install": (*PIPELINE, *FLOOR, "promerge_fo.detector"),
    "promerge_fo.cli": EVERYTHING,
    "promerge_fo.__main__": ("promerge_fo.cli",),
    "operators": ("promerge_fo", "plugin"),
    "plugin": ("promerge_fo",),
    "benchmarks": EVERYTHING,
    "docs": (*EVERYTHING, "benchmarks"),
}  # fmt: skip
#: Private attributes of other libraries than FiftyOne, by file.
PRIVATE = {
    "promerge_fo/dataset/evaluation/coco_metrics.py": {"_paramsEval"},  # pycocotools
    "promerge_fo/detector/heads.py": {"_init_box_head", "_match_and_label_boxes"},  # detectron2
    "promerge_fo/cli/__init__.py": {"_exit"},  # os, where it is documented
    "promerge_fo/kernels/__init__.py": {"_cache"},  # numba
    "promerge_fo/encoder/device.py": {"_schema"},  # torch
    "promerge_fo/encoder/vit.py": {"_pos_embed", "_compiled_call_impl"},  # timm, torch
}
MOST_FILES = 18


def code() -> list[Path]:
    """Python files outside of tests."""
    places = ("promerge_fo", "operators", "plugin", "benchmarks", "docs")
    return [path for place in places for path in sorted((ROOT / place).rglob("*.py"))]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def modules() -> dict[str, Path]:
    """Files by the name that they are imported by."""
    named = {}
    for path in code():
        parts = path.relative_to(ROOT).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


def import_statements(path: Path) -> Iterator[tuple[str, str | None, str]]:
    """The module, the name that is taken from it (None for all of it), and the name given here."""
    here = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None, alias.asname or alias.name
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                module = ".".join([*here[: len(here) - node.level + 1], *filter(None, [module])])
                # plugin and operators are one package in FiftyOne: see plugin/__init__.py
                if module not in modules() and module.partition(".")[2] in modules():
                    module = module.partition(".")[2]
                elif module not in modules() and f"plugin.{module}" in modules():
                    module = f"plugin.{module}"
            for alias in node.names:
                yield module, alias.name, alias.asname or alias.name


@cache
def definer(module: str, name: str) -> str | None:
    """The module that defines what another one offers under a name; None from outside."""
    if f"{module}.{name}" in modules():
        return f"{module}.{name}"
    if module not in modules():
        return None
    path = modules()[module]
    sources = [path, *([stub] if (stub := path.with_suffix(".pyi")).is_file() else [])]
    for source in sources:
        for origin, taken, given in import_statements(source):
            if given == name and taken is not None and origin != module:
                return definer(origin, taken) or module
    return module


@cache
def arrows() -> dict[str, set[str]]:
    """What each module imports of the project."""
    found: dict[str, set[str]] = {module: set() for module in modules()}
    for module, path in modules().items():
        for origin, name, _ in import_statements(path):
            target = origin if name is None else definer(origin, name)
            if target in modules() and target != module:
                found[module].add(target)
    return found


def room_of(module: str) -> str:
    fitting = [room for room in ROOMS if module == room or module.startswith(f"{room}.")]
    return max(fitting, key=len, default=module)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components with more than one module (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in sorted(graph[module]):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            members = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(members) > 1:
                found.append(sorted(members))

    for module in sorted(graph):
        if module not in index:
            visit(module)
    return found


def test_no_files_import_each_other_in_a_circle():
    assert circles(arrows()) == []


def test_a_circle_is_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert circles(graph) == [["b", "c"]]


def test_no_import_points_upwards_or_into_a_neighbouring_room():
    wrong = []
    for module, targets in arrows().items():
        room = room_of(module)
        allowed = ROOMS.get(room, ())
        for target in sorted(targets):
            aim = room_of(target)
            if aim != room and not any(aim == a or aim.startswith(f"{a}.") for a in allowed):
                wrong.append(f"{module} -> {target}")
    assert wrong == []


def test_every_file_of_the_library_lies_in_a_room():
    homeless = [m for m in modules() if m.startswith("promerge_fo.") and room_of(m) not in ROOMS]
    assert set(homeless) <= {"promerge_fo.dataset"}  # the public names


def test_the_library_imports_names_from_the_files_that_define_them():
    wrong = [
        f"{module}: {name} from {origin}, which has it from {definer(origin, name)}"
        for module, path in modules().items()
        if module.startswith("promerge_fo.") and path.name != "__init__.py"
        for origin, name, _ in import_statements(path)
        if origin in modules() and name is not None
        if definer(origin, name) not in (origin, f"{origin}.{name}")
    ]
    assert wrong == []


@pytest.mark.parametrize("place", ["promerge_fo", "operators", "plugin", "benchmarks", "tests"])
def test_no_folder_has_too_many_files(place):
    folders = {path.parent for path in (ROOT / place).rglob("*.py")}
    crowded = {
        str(folder.relative_to(ROOT)): count
        for folder in folders
        if (count := len(list(folder.glob("*.py")))) > MOST_FILES
    }
    assert crowded == {}


def private_attributes(tree: ast.AST) -> set[str]:
    """Names of attributes with an underscore in front that are not an object's own."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    }


def test_private_attributes_are_touched_in_one_file_alone():
    wrong = {}
    for path in code():
        place = path.relative_to(ROOT).as_posix()
        if place == "promerge_fo/dataset/database.py":
            continue
        foreign = private_attributes(parsed(path)) - PRIVATE.get(place, set())
        # an object of one's own class, such as another PatchGraph, may be looked into in its file
        defined = {n.name for n in ast.walk(parsed(path)) if isinstance(n, ast.FunctionDef)}
        if foreign - defined:
            wrong[place] = sorted(foreign - defined)
    assert wrong == {}


def test_a_private_attribute_is_found():
    tree = ast.parse("def f(samples, self):\n    return samples.view()._dataset, self._own")
    assert private_attributes(tree) == {"_dataset"}


def test_fiftyones_database_layer_is_imported_in_one_file_alone():
    wrong = [
        str(path.relative_to(ROOT))
        for path in code()
        if path.parts[-2:] != ("dataset", "database.py")
        and any(origin.startswith("fiftyone.core.odm") for origin, _, _ in import_statements(path))
    ]
    assert wrong == []
