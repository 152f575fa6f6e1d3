"""This repository as a source of FiftyOne zoo models: what manifest.json lists.

    foz.register_zoo_model_source("https://github.com/<owner>/<repository>")
    model = foz.load_zoo_model("promerge-dino-vitb8")

FiftyOne runs this file whenever it needs a model, from the copy of the repository that it keeps.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

if importlib.util.find_spec("promerge_fo") is None:  # an installed promerge_fo wins
    sys.path.append(str(Path(__file__).resolve().parent))

ENCODERS = {
    "promerge-dino-vitb8": "vit_base_patch8_224.dino",
    "promerge-dino-vits8": "vit_small_patch8_224.dino",
    "promerge-dino-vits16": "vit_small_patch16_224.dino",
    "promerge-dinov2-vits14": "vit_small_patch14_reg4_dinov2.lvd142m",
    "promerge-dinov2-vitb14": "vit_base_patch14_reg4_dinov2.lvd142m",
    "promerge-dinov3-vits16": "vit_small_patch16_dinov3.lvd1689m",
    "promerge-dinov3-vitb16": "vit_base_patch16_dinov3.lvd1689m",
    "promerge-texture": "texture",
}
SMALLEST = "promerge-dino-vits16"  #: which has the preset "fast" by default


def download_model(model_name: str, model_path: str) -> None:
    """Put a model's weights at ``model_path``: the hub's own file, so that its SHA-256 names it."""
    target = Path(model_path)
    if ENCODERS[model_name] == "texture":
        target.write_text("The texture encoder has no weights.\n")
        return
    from huggingface_hub import hf_hub_download

    weights = hf_hub_download(f"timm/{ENCODERS[model_name]}", "model.safetensors")
    unfinished = target.with_suffix(".part")
    shutil.copyfile(weights, unfinished)
    unfinished.replace(target)


def resolve_input(model_name: str, ctx: Any) -> Any:
    """What the App asks before it loads a model: arguments of :func:`load_model`."""
    from typing import get_args

    from fiftyone.operators import types

    from promerge_fo.config import ProMergeConfig
    from promerge_fo.encoder.base import Facet

    inputs = types.Object()
    presets = ["default", *ProMergeConfig.presets]
    inputs.enum(
        "preset",
        list(dict.fromkeys(presets)),
        default="fast" if model_name == SMALLEST else "default",
        label="Preset",
        description="of the method's parameters",
    )
    if ENCODERS[model_name] != "texture":
        about = "the features that are taken; keys, or the calibration's, if empty"
        inputs.enum("facet", list(get_args(Facet)), label="Facet", description=about)
    about = "the first GPU, where there is one, if empty"
    inputs.enum("device", ["cuda", "mps", "cpu"], label="Device", description=about)
    return types.Property(inputs, view=types.View(label="ProMerge"))


def load_model(model_name: str, model_path: str, **kwargs: Any) -> Any:
    """The model that ``apply_model`` runs.

    Args:
        model_name: one of :data:`ENCODERS`.
        model_path: where :func:`download_model` put the weights.
        kwargs: arguments of :func:`promerge_fo.load_model`, such as ``device``, ``preset``,
            ``facet``, ``block`` or ``calibration``. Without the latter, DINOv2 and DINOv3 want
            ``model.calibrate(dataset.values("filepath"))`` before ``apply_model``.
    """
    from promerge_fo.dataset.runs.model import load_model

    encoder = ENCODERS[model_name]
    if encoder == "texture":
        return load_model(encoder=encoder, **kwargs)
    if model_name == SMALLEST and "config" not in kwargs:
        kwargs.setdefault("preset", "fast")
    return load_model(encoder=encoder, checkpoint=model_path, **kwargs)
