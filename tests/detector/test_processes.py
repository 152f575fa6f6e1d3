"""Several processes train one detector, as several GPUs do; here on a CPU."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from pathlib import Path
from detectron2.engine import launch
from promerge_fo.detector import DetectorConfig
from promerge_fo.detector.job import Job

def main(labels, place):
    import torch
    from detectron2.utils import comm
    from promerge_fo.detector import loop

    torch.set_num_threads(1)

    def hook(trainer):  # each process writes down what its weights came to
        weight = trainer.model.module.roi_heads.box_predictor[2].cls_score.weight
        Path(place, f"rank{comm.get_rank()}").write_text(repr(weight.detach().sum().item()))

    class Trainer(loop.SimpleTrainer):
        def after_train(self):
            super().after_train()
            hook(self)

    loop.SimpleTrainer = Trainer
    config = DetectorConfig(iterations=2, batch_size=2, warmup=0, short_side_low=48, long_side=64,
                            short_side_high=64, test_short_side=64, regions=16, proposals=100,
                            precise_norm=1)
    loop.run(Job(Path(labels), Path(labels).parent, Path(place), config, None, False, "cpu", 0,
                 1000, 1000, print))

if __name__ == "__main__":
    launch(main, 2, dist_url="auto", args=tuple(sys.argv[1:]))
"""


def test_two_processes_train_one_detector(detectron2, squares, tmp_path):
    script, place = tmp_path / "script.py", tmp_path / "out"
    script.write_text(SCRIPT)
    place.mkdir()
    repository = str(Path(__file__).parents[2])
    path = os.pathsep.join([repository, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(script), str(squares), str(place)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in (place / "losses.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [0, 1]
    assert all(math.isfinite(line["total_loss"]) for line in lines)
    assert (place / "model_final.pth").stat().st_size > 1e8
    (place / "model_final.pth").unlink()
    # gradients are shared: both processes have the same weights, to the last bit
    assert (place / "rank0").read_text() == (place / "rank1").read_text()
