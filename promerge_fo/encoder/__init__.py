"""Images to patch features: vision transformers, and a stand-in that needs no weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from promerge_fo.encoder.base import Encoder, Facet, Precision, Resize, ResizeMode
from promerge_fo.encoder.weights import WeightsError

if TYPE_CHECKING:
    import torch

__all__ = [
    "Encoder",
    "Facet",
    "Precision",
    "Resize",
    "ResizeMode",
    "WeightsError",
    "load_encoder",
]


def load_encoder(
    name: str = "vit_base_patch8_224.dino",
    checkpoint: str | Path | None = None,
    facet: Facet | None = None,
    device: str | torch.device | None = None,
    precision: Precision = "fp32",
    image_size: int = 480,
    resize: ResizeMode = "square",
    compile: bool = False,
    block: int | None = None,
    embed_facet: Facet | None = None,
    embed_block: int | None = None,
) -> Encoder:
    """An encoder by its name.

    Args:
        name: a vision transformer of timm's, or ``"texture"``, which needs no weights: a
            demonstration aid, see :class:`~promerge_fo.encoder.texture.TextureEncoder`.
        checkpoint: a local file with weights, in timm's or DINO's layout; None downloads timm's
            weights, once.
        facet: ``"key"`` (the paper's choice), ``"query"``, ``"value"``, ``"token"`` (the block's
            output) or ``"normed_token"`` (that after the model's final norm); ignored by the
            texture encoder. None takes keys, unless a calibration chooses another facet.
        device: a torch device; None is CUDA or Apple's GPU if there is one, else the CPU.
        precision: ``"fp32"``, which gives the reference's masks, ``"bf16"``, or ``"auto"``: bf16
            on devices that are fast at it. The texture encoder is always fp32.
        image_size: side in pixels of a square image, rounded down to whole patches.
        resize: ``"square"`` (the paper's choice), or ``"aspect"``, which keeps the images'
            aspect ratio and gives features as a list.
        compile: compile the transformer at the first batch, which makes later ones faster; see
            :class:`~promerge_fo.encoder.vit.VitEncoder` for its costs and requirements. The
            features are the same up to rounding.
        block: the block whose facet is taken, from 1; None is the last.
        embed_facet: the facet of which embeddings of masks are made; None is ``facet``.
        embed_block: the block of which they are made, from 1; None is ``block``.

    Raises:
        ValueError: an unknown or unsuitable model, or an argument out of its range.
        WeightsError: the weights cannot be had, or a checkpoint does not fit the model.
        ImportError: timm cannot be imported.
    """
    if name == "texture":
        from promerge_fo.encoder.texture import TextureEncoder

        if checkpoint is not None:
            raise ValueError(
                f"checkpoint is {str(checkpoint)!r}, but the encoder 'texture' has no weights; "
                "leave it out, or name the model that the checkpoint holds"
            )
        if compile:
            raise ValueError(
                "compile is True, but the encoder 'texture' has no model to compile; leave it out"
            )
        for number in (block, embed_block):
            if number is not None:
                raise ValueError(f"block is {number}, but the encoder 'texture' has no blocks")
        return TextureEncoder(device=device, image_size=image_size, resize=resize)
    from promerge_fo.encoder.vit import VitEncoder

    return VitEncoder(
        name, checkpoint, facet, device, precision, image_size, resize, compile, block,
        embed_facet, embed_block,
    )  # fmt: skip
