"""``predict``: what a trained detector finds, as a field."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from ..forms import Form, chosen_path
from ..operator import Operator
from ..progress import follow, outcome
from ..trainings import trainings
from .train_detector import DEVICES, refuse_without_detectron2


class Predict(Operator):
    """A form and calls of ``promerge_fo.detector.predict`` and ``import_predictions``."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="predict",
            label="ProMerge: predict with a detector",
            description="What a trained detector finds, as a field; its file may be kept",
            icon="center_focus_strong",
            dynamic=True,
            execute_as_generator=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        form = Form(ctx, "ProMerge: predict with a trained detector", "Predict")
        if form.refuse_without_images():
            return form.property()
        refuse_without_detectron2(form)
        form.inputs.view_target(ctx)
        self._ask_detector(form)
        form.ask_free_field("label_field", "promerge_plus")
        form.inputs.float(
            "min_score",
            default=form.last.get("min_score", 0.0),
            min=0,
            max=1,
            label="Lowest score",
            description="0 keeps all, which AP and AR need",
        )
        form.inputs.int(
            "top_k",
            default=form.last.get("top_k"),
            min=1,
            label="At most so many an image",
            description="100 if empty",
        )
        form.choose("device", DEVICES, "On", default="gpu")
        form.ask_path("path", "Keep the predictions as", "a .json file; kept nowhere if empty")
        path = form.given("path")
        if path and (not Path(path).expanduser().is_absolute() or not path.endswith(".json")):
            form.refuse(f"{path!r} is no absolute path that ends in .json.", "path_refused")
        elif path and Path(path).expanduser().exists():
            form.warn("file_replaced", f"{Path(path).name} exists and is replaced")
        return form.property()

    def _ask_detector(self, form: Form) -> None:
        from promerge_fo.detector.prediction import find_detector
        from promerge_fo.detector.weights import require_detector

        known = next(iter(trainings(form.ctx)), None)
        form.ask_path(
            "detector",
            "Detector",
            "the folder of a training, or a checkpoint: one of its own, or CutLER's (.pth)",
            required=True,
            default=known,
        )
        detector = form.given("detector", known)
        if not detector:
            form.refuse("Say which detector.", "detector_refused")
            return
        try:
            require_detector(find_detector(detector))
        except (ValueError, OSError, RuntimeError) as error:
            form.refuse(str(error), "detector_refused")

    def work(self, ctx: Any) -> Any:
        from promerge_fo.dataset.exchange.imports import import_predictions
        from promerge_fo.detector import predict

        params, target = ctx.params, ctx.target_view()
        with tempfile.TemporaryDirectory() as folder:
            path = chosen_path(params.get("path")) or str(Path(folder, "predictions.json"))
            found = yield from follow(
                ctx,
                "images",
                lambda bar: predict(
                    chosen_path(params["detector"]),
                    target,
                    path,
                    min_score=params.get("min_score") or 0.0,
                    device="cpu" if params.get("device") == "cpu" else None,
                    num_workers=None if ctx.delegated else 0,
                    progress=bar,
                ),
            )
            stored = import_predictions(
                target,
                path,
                params["label_field"],
                top_k=params.get("top_k"),
                overwrite=params.get("overwrite", False),
            )
        yield ctx.ops.reload_dataset()
        failed = "".join(f"\n\n{line}" for line in found.failed[:10])
        yield outcome(ctx, str(stored).replace("\n", "\n\n") + failed, types.MarkdownView())
