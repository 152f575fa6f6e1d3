"""The notebook of the guides runs from its first cell to its last, and gives what it promises."""

import json
import os
import re
import sys
from pathlib import Path

from tests.needs import need

NOTEBOOK = Path(__file__).parents[1] / "docs" / "quickstart.ipynb"


def test_the_quickstart_runs_from_a_folder_to_a_reviewed_export(fo, tmp_path, monkeypatch):
    nbformat = need("nbformat", "pip install 'promerge-fo[dev]'")
    nbclient = need("nbclient", "pip install 'promerge-fo[dev]'")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) == 10

    root = os.pathsep.join([str(NOTEBOOK.parents[1]), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", root)
    client = nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.create_kernel_manager().kernel_spec.argv[0] = sys.executable  # this environment
    before = set(fo.list_datasets())
    try:
        client.execute()
    finally:
        for name in set(fo.list_datasets()) - before:
            fo.delete_dataset(name)

    said = ["".join(_texts(cell)) for cell in cells]
    assert "6 images" in said[3]
    assert any("image/jpeg" in each.get("data", {}) for each in cells[4].outputs)
    total = re.fullmatch(r"(\d+) of \1, \d+ % accepted\n", said[6])[1]
    first, second = said[7].splitlines()
    assert first.endswith(f" of {total}, 0 % accepted") and second.startswith(f"{total} of {total}")
    assert "AR100" in said[8]
    exported = json.loads((tmp_path / "accepted.json").read_text())
    assert said[9] == f"(6, {len(exported['annotations'])})"
    assert 0 < len(exported["annotations"]) < int(total)


def _texts(cell):
    """All that a cell printed, and what its last line gave."""
    for output in cell.outputs:
        yield output.get("text", "") or output.get("data", {}).get("text/plain", "")
