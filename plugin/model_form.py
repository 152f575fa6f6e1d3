"""What forms ask of a method: its settings to start from, and the encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fiftyone.operators import types

from .forms import Form, chosen_path, menu
from .memory import recall, remember

PRESETS = {
    "default": "the released code's masks, with scores that rank them",
    "official": "the authors' released code, every score 1",
    "paper": "Algorithm 1 of the paper, every score 1",
    "fast": "a smaller encoder, for machines without a GPU",
    "proposals": "all objects and their parts at several levels, ranked; 20 to 40 masks an image",
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

AUTO = "auto"  #: the device that load_model takes by itself
CHOSEN = "chosen"  #: the facet that the calibration chooses
SAME = "same"  #: the facet that the masks are made of
NAMED_FACETS = {
    "key": "the paper's choice, for DINO",
    "query": "",
    "value": "",
    "token": "the block's output",
    "normed_token": "the block's output after the model's final norm",
}
FACETS = {CHOSEN: "what the calibration finds best; keys for DINO", **NAMED_FACETS}

DEVICES = {
    AUTO: "the first GPU with CUDA, where there is one",
    "cuda": "a GPU with CUDA",
    "mps": "a GPU of Apple's",
    "cpu": "",
}
PRECISIONS = {
    "fp32": "exact, the same on all machines",
    "bf16": "half the memory, faster on GPUs that have it",
    "auto": "bf16 where the GPU has it",
}
RESIZES = {
    "square": "to the image size on both sides, as in the paper",
    "aspect": "keep the sides' ratio",
}

TUNED = "tuned"  #: the preset that tuning chose on a dataset, where it did


def ask_model(
    form: Form, about_preset: str = "", with_tuned: bool = True
) -> tuple[Any, str, str | None]:
    """Ask for a method, a preset, the encoder, and a file with its weights (``checkpoint``).

    Args:
        form: that asks.
        about_preset: what the preset is for.
        with_tuned: whether what tuning chose on the dataset is a preset, too.

    Returns:
        The class of the method's configurations, the preset's name, and the encoder's; None is the
        preset's encoder.
    """
    kind = kind_of(form.choose("method", METHODS, "Method"))
    presets = {name: PRESETS[name] for name in kind.presets}
    tuned = tuned_of(form.ctx, kind) if with_tuned else None
    if tuned is not None:
        presets[TUNED] = tuned["meaning"]
    preset = form.choose("preset", presets, "Preset", about_preset, "default")
    encoder = ask_encoder(form, "the preset's")
    if encoder != "texture":
        form.choose("facet", FACETS, "Facet", "which features of the block are taken", CHOSEN)
        form.count("block", "Block", "whose features are taken, from 1; the last one if empty")
        if preset != TUNED and kind.preset(preset).can_calibrate:
            about = (
                "otherwise, thresholds are chosen on 32 of the images, without labels, where the "
                "paper's do not suit the encoder"
            )
            form.tick("no_calibrate", "Keep the paper's thresholds", about, keep=True)
        form.choose("precision", PRECISIONS, "Precision", "of the encoder", "fp32")
    form.choose("resize", RESIZES, "Resize images", default="square")
    form.choose("device", DEVICES, "Device", "that the encoder runs on", AUTO)
    return kind, preset, encoder


def ask_encoder(form: Form, otherwise: str) -> str | None:
    """Ask for an encoder, and a file with its weights (``checkpoint``).

    Args:
        form: that asks.
        otherwise: which encoder is taken where none is given.
    """
    about = f"a timm ViT, or 'texture', which needs no weights; {otherwise} if empty"
    view = menu(types.AutocompleteView(), ENCODERS)
    encoder: str | None = form.text("encoder", "Encoder", about, view=view)
    if encoder and encoder not in ENCODERS:
        form.attempt("encoder", lambda: _require_model(encoder))
    about = "weights in DINO's or timm's layout, in place of the hub's"
    form.file("checkpoint", "Checkpoint", about)
    return encoder


def ask_embedding(form: Form) -> None:
    """Ask whether masks also get embeddings (``embed``), and of which features."""
    about = "a vector for each mask, made in the same pass, to map, group and name masks by"
    embeds = form.tick("embed", "Embed the masks", about, keep=True)
    if embeds and form.given("encoder") != "texture":
        about = "which features embeddings are made of"
        form.choose(
            "embed_facet",
            {SAME: "as for the masks", **NAMED_FACETS},
            "Facet of embeddings",
            about,
            SAME,
        )
        about = "that embeddings are made of, from 1; that of the masks if empty"
        form.count("embed_block", "Block of embeddings", about)


def asked_embedding(params: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``load_model`` that :func:`ask_embedding` asked for."""
    if not params.get("embed"):
        return {}
    facet = params.get("embed_facet", SAME)
    return {
        "embed": True,
        "embed_facet": None if facet == SAME else facet,
        "embed_block": params.get("embed_block"),
    }


def _require_model(name: str) -> None:
    from promerge_fo.encoder.vit import require_model

    require_model(name)


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


def load_asked(ctx: Any, **changes: Any) -> Any:
    """The model that a form with a method, a preset and an encoder asks for.

    Args:
        ctx: FiftyOne's execution context.
        changes: parameters that differ from the preset's.
    """
    from promerge_fo.dataset.runs.model import load_model

    params = ctx.params
    kind, preset = asked(params)
    tuned = (tuned_of(ctx, kind) if preset == TUNED else None) or {}
    start = start_of(ctx, kind, preset)
    before = start.to_dict()
    named = {name: value for name, value in changes.items() if value != before[name]}
    encoder = params.get("encoder") or encoder_of(ctx, kind, preset)
    chosen: dict[str, Any] = {}
    if encoder != "texture":
        facet = params.get("facet", CHOSEN)
        chosen["facet"] = tuned.get("facet") if facet == CHOSEN else facet
        chosen["block"] = params.get("block") or tuned.get("block")
        chosen["precision"] = params.get("precision", "fp32")
    device = params.get("device", AUTO)
    return load_model(
        config=start.replace(**named),
        encoder=encoder,
        checkpoint=chosen_path(params.get("checkpoint")),
        device=None if device == AUTO else device,
        resize=params.get("resize", "square"),
        **chosen,
        **asked_embedding(params),
    )


def asked(params: Mapping[str, Any]) -> tuple[Any, str]:
    """The class of the method's configurations, and the preset, that were asked for."""
    return kind_of(params.get("method")), params.get("preset", "default")


def encoder_of(ctx: Any, kind: Any, preset: str) -> str:
    """The encoder that a preset takes where none is named."""
    from promerge_fo.config import preset_encoder

    tuned = tuned_of(ctx, kind) if preset == TUNED else None
    return preset_encoder(preset) if tuned is None else str(tuned["encoder"])


def tuned_of(ctx: Any, kind: Any) -> dict[str, Any] | None:
    """What tuning chose for a method on the dataset: ``config``, ``encoder`` and ``meaning``."""
    kept: dict[str, Any] | None = recall(ctx, f"tuned settings {kind.method}")
    return kept


def keep_tuned(ctx: Any, method: str, tuning: Any) -> None:
    """Make the choice of tuning a preset of the method; drop that where nothing was decided."""
    chosen = None
    if tuning.decided:
        chosen = {
            "config": tuning.config.to_dict(),
            **{
                ("encoder" if name == "name" else name): tuning.ablation.encoder.get(name)
                for name in ("name", "facet", "block")
            },
            "meaning": f"on {tuning.ablation.images} images, {tuning.metric} gains {tuning.gain}",
        }
    remember(ctx, f"tuned settings {method}", chosen)
