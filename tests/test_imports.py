"""What runs where: the method needs neither FiftyOne nor a database, and names cost little."""

import subprocess
import sys

BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocked())
"""


def run(code: str, names: tuple[str, ...]) -> str:
    code = BLOCKED.format(names=set(names)) + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_pipeline_runs_on_a_bare_machine():
    code = """
import numpy as np
from promerge_fo import Pipeline, ProMergeConfig, load_encoder, refine_masks, segment_features
image = np.zeros((90, 120, 3), dtype=np.uint8)
image[20:70, 30:95] = [200, 30, 30]
encoder = load_encoder("texture", image_size=96)
result = Pipeline(encoder, ProMergeConfig(image_size=96))([image])[0]
print(result.status, len(result.masks))
"""
    absent = ("fiftyone", "eta", "pycocotools", "pydensecrf", "detectron2", "ray", "matplotlib")
    status, masks = run(code, absent).split()
    assert (status, int(masks) >= 1) == ("ok", True)


def test_importing_the_package_loads_nothing_heavy():
    run("import promerge_fo, promerge_fo.config, promerge_fo.cli", ("torch", "numba", "fiftyone"))


def test_the_database_can_be_examined_where_fiftyone_cannot_be_imported():
    code = "from promerge_fo.install.mongod import mongod_location; print(mongod_location())"
    assert "mongod" in run("sys.modules.pop('fiftyone', None)\n" + code, ("eta", "mongoengine"))


def test_exports_and_imports_do_without_torch(fo):
    run(
        "import promerge_fo.dataset.exchange.export, promerge_fo.dataset.exchange.imports",
        ("torch", "timm"),
    )


def test_without_ray_it_is_said_how_to_get_it():
    code = """
from promerge_fo import cluster
try:
    cluster.segment_on_ray
except ImportError as error:
    print(error)
"""
    for name in ("ray", "pyarrow"):
        assert "pip install 'promerge-fo[cluster]'" in run(code, (name,))
