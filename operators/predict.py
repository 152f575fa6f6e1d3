"""``predict``: what a trained detector finds, as a field."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ..forms import Form, filled, require_writable, target_of
from ..jobs import Job, Outcome
from ..memory import trainings
from ..operator import LongOperator
from .train_detector import DEVICES, refuse_without_detectron2


class Predict(LongOperator):
    """A form and calls of ``promerge_fo.detector.predict`` and ``import_predictions``."""

    label = "ProMerge: predict with a detector"
    description = "What a trained detector finds, as a field; its file may be kept"
    icon = "center_focus_strong"
    makes_masks = True
    heading = "ProMerge: predict with a trained detector"
    button = "Predict"

    def ask(self, form: Form) -> None:
        from promerge_fo.detector.prediction import find_detector
        from promerge_fo.detector.weights import require_detector

        refuse_without_detectron2(form)
        form.target()
        form.path(
            "detector",
            "Detector",
            "the folder of a training, or a checkpoint: one of its own, or CutLER's (.pth)",
            check=lambda path: require_detector(find_detector(path)),
            missing="Say which detector.",
            default=next(iter(trainings(form.ctx)), None),
        )
        form.new_field("label_field", "promerge_plus")
        form.share("min_score", "Lowest score", "0 keeps all, which AP and AR need", 0.0)
        form.count("top_k", "At most so many an image", "100 if empty")
        form.choose("device", DEVICES, "On", default="gpu")
        about = "a .json file; kept nowhere if empty"
        form.path("path", "Keep the predictions as", about, lambda path: _check(form, path))

    def work(self, ctx: Any, job: Job) -> Outcome:  # type: ignore[override]
        from promerge_fo.dataset.exchange.imports import import_predictions
        from promerge_fo.detector import predict

        params, target = ctx.params, target_of(ctx)
        with tempfile.TemporaryDirectory() as folder:
            path = params.get("path") or str(Path(folder, "predictions.json"))
            found = predict(
                params["detector"],
                target,
                path,
                device="cpu" if params.get("device") == "cpu" else None,
                num_workers=None if ctx.delegated else 0,
                progress=job.progress("images"),
                **filled(params, "min_score"),
            )
            options = filled(params, "top_k", "overwrite", "drop_decisions")
            stored = import_predictions(target, path, params["label_field"], **options)
        failed = "".join(f"\n\n{line}" for line in found.failed[:10])
        result = {"label_field": params["label_field"], "failed": list(found.failed)}
        return Outcome(str(stored).replace("\n", "\n\n") + failed, result)


def _check(form: Form, path: str) -> None:
    """Refuse what is no place for the predictions, and say what is replaced."""
    target = Path(path).expanduser()
    if not target.is_absolute() or target.suffix != ".json":
        raise ValueError(f"{path!r} is no absolute path that ends in .json.")
    require_writable(target)
    if target.exists():
        form.warn("file_replaced", f"{target.name} exists and is replaced")
