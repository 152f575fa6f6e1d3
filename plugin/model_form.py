"""What forms ask of a method: its settings to start from, and the encoder."""

from __future__ import annotations

from typing import Any

from fiftyone.operators import types

from .forms import STORE, Form

PRESETS = {
    "default": "the released code's masks, with scores that rank them",
    "official": "the authors' released code, every score 1",
    "paper": "Algorithm 1 of the paper, every score 1",
    "fast": "a smaller encoder, for machines without a GPU",
}
METHODS = {
    "promerge": "prompts, background vote, cascade filtering and merging (ECCV 2024)",
    "maskcut": "normalised cuts, one after the other (CutLER, CVPR 2023)",
    "tokencut": "one normalised cut, one mask (CVPR 2022)",
}
ENCODERS = {
    "texture": "colour and texture without weights: shows that everything works, no measure",
    "vit_base_patch8_224.dino": "DINO ViT-B/8, as in the paper",
    "vit_small_patch8_224.dino": "DINO ViT-S/8, about a quarter of the time",
    "vit_small_patch16_224.dino": "DINO ViT-S/16, for laptops",
    "vit_base_patch16_224.dino": "DINO ViT-B/16",
}

TUNED = "tuned"  #: the preset that tuning chose on a dataset, where it did
_KEPT = "tuned settings"  # in the dataset's store


def ask_method(form: Form) -> Any:
    """A menu of the methods; returns the class of the chosen one's configurations."""
    return kind_of(form.choose("method", METHODS, "Method"))


def ask_preset(form: Form, kind: Any) -> str:
    """A menu of the method's presets, and of what tuning chose."""
    presets = {name: PRESETS[name] for name in kind.presets}
    tuned = tuned_of(form.ctx, kind)
    if tuned is not None:
        presets[TUNED] = tuned["meaning"]
    return form.choose("preset", presets, "Preset", default="default") or "default"


def ask_encoder(form: Form) -> str | None:
    """The encoder's name, None for the preset's, and a file with its weights (``checkpoint``)."""
    view = types.AutocompleteView()
    for name, meaning in ENCODERS.items():
        view.add_choice(name, label=name, description=meaning)
    form.inputs.str(
        "encoder",
        default=form.last.get("encoder"),
        label="Encoder",
        description="a timm ViT, or 'texture', which needs no weights; the preset's if empty",
        view=view,
    )
    form.inputs.file(
        "checkpoint",
        label="Checkpoint",
        description="weights in DINO's or timm's layout, in place of the hub's",
        view=types.FileExplorerView(button_label="Choose a file"),
    )
    given: str | None = form.given("encoder")
    return given


def kind_of(method: str | None) -> Any:
    """The class of a method's configurations."""
    from promerge_fo.config import METHODS

    return METHODS[method or "promerge"]


def start_of(ctx: Any, kind: Any, preset: str) -> Any:
    """The configuration that a preset is, on the dataset at hand.

    Raises:
        ValueError: an unknown preset, or settings of tuning that are no longer there.
    """
    if preset != TUNED:
        return kind.preset(preset)
    tuned = tuned_of(ctx, kind)
    if tuned is None:
        raise ValueError(f"nothing was tuned for {kind.method} on this dataset; take a preset")
    return kind.from_dict(tuned["config"])


def encoder_of(ctx: Any, kind: Any, preset: str) -> str:
    """The encoder that a preset takes where none is named."""
    from promerge_fo.dataset.runs.model import preset_encoder

    tuned = tuned_of(ctx, kind) if preset == TUNED else None
    return preset_encoder(preset) if tuned is None else str(tuned["encoder"])


def tuned_of(ctx: Any, kind: Any) -> dict[str, Any] | None:
    """What tuning chose for a method on the dataset: ``config``, ``encoder`` and ``meaning``."""
    if ctx.dataset is None:
        return None
    kept: dict[str, Any] | None = ctx.store(STORE).get(f"{_KEPT} {kind.method}")
    return kept


def keep_tuned(ctx: Any, method: str, tuning: Any) -> None:
    """Make the choice of tuning a preset of the method; drop that where nothing was decided."""
    key = f"{_KEPT} {method}"
    if not tuning.decided:
        ctx.store(STORE).delete(key)
        return
    meaning = f"chosen on {tuning.ablation.images} images: {tuning.metric} {tuning.worth}"
    encoder = tuning.ablation.encoder["name"]
    ctx.store(STORE).set(
        key, {"config": tuning.config.to_dict(), "encoder": encoder, "meaning": meaning}
    )
