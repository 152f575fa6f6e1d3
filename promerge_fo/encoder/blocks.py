"""Parts of timm's vision transformers: the way to a block, and the facets that it has there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["POST_NORM", "PRE_NORM", "TOKENS", "Facets", "Trunk", "dino_positions"]

PRE_NORM = ("Block", "EvaBlock")  #: attention reads norm1(x)
POST_NORM = ("ResPostBlock", "EvaBlockPostNorm")  #: attention reads x
TOKENS = ("token", "normed_token")  #: the facets that take the whole block


class Facets(nn.Module):
    """Facets of one block, from the block's arguments; only what they need of it is kept.

    Args:
        block: of timm's.
        final_norm: the model's.
        facets: names, see :class:`~promerge_fo.encoder.vit.VitEncoder`.
    """

    def __init__(self, block: Any, final_norm: nn.Module, facets: Iterable[str]) -> None:
        super().__init__()
        self.norm = block.norm1 if type(block).__name__ in PRE_NORM else nn.Identity()
        parts: dict[str, nn.Module] = {}
        for each in facets:
            if each in TOKENS:
                self.block = block
                parts[each] = final_norm if each == "normed_token" else nn.Identity()
            else:
                parts[each] = _projection(block.attn, each)
        self.parts = nn.ModuleDict(parts)

    def forward(self, facet: str, tokens: torch.Tensor, context: dict[str, Any]) -> torch.Tensor:
        """One facet, (B, tokens, C)."""
        tokens = self.block(tokens, **context) if facet in TOKENS else self.norm(tokens)
        features: torch.Tensor = self.parts[facet](tokens)
        return features


class Trunk(nn.Module):
    """A timm model up to the input of its last block.

    Returns:
        That input (B, tokens, channels), and the block's other arguments (RoPE, masks).
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        model.blocks[-1] = _PassOn()
        model.norm = nn.Identity()
        model.patch_embed.proj = _PatchProjection(model.patch_embed.proj)
        self.model = model

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        """The arguments of the last block, for normalised pixels (B, 3, H, W)."""
        tokens, context = self.model.forward_features(pixels)
        return tokens, context


class _PassOn(nn.Module):
    """In place of the last block: returns the arguments of that block."""

    def forward(self, tokens: torch.Tensor, **context: Any) -> tuple[torch.Tensor, dict[str, Any]]:
        return tokens, context


class _PatchProjection(nn.Module):
    """The patch embedding's convolution as a matrix product: cuDNN would use TF32 for it."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.size = convolution.kernel_size
        self.linear = _linear(convolution.weight.flatten(1), convolution.bias)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        (B, _, H, W), (p, q) = pixels.shape, self.size
        grid = pixels.reshape(B, -1, H // p, p, W // q, q).permute(0, 2, 4, 1, 3, 5)
        projected: torch.Tensor = self.linear(grid.reshape(B, H // p, W // q, -1))
        return projected.permute(0, 3, 1, 2)


def _projection(attention: Any, facet: str) -> nn.Linear:
    """The linear layer of one facet, cut out of an attention layer.

    timm has one ``qkv`` layer with or without bias, one with separate biases (``q_bias``,
    ``v_bias``; keys have none), or three layers.
    """
    letter = facet[0]
    if attention.qkv is None:
        separate: nn.Linear = getattr(attention, f"{letter}_proj")
        return separate
    size, part = attention.qkv.out_features // 3, "qkv".index(letter)
    rows = slice(size * part, size * (part + 1))
    bias = attention.qkv.bias
    bias = getattr(attention, f"{letter}_bias", None) if bias is None else bias[rows]
    return _linear(attention.qkv.weight[rows], bias)


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """A layer with copies of these values."""
    rows, columns = weight.shape
    linear = nn.Linear(columns, rows, bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().clone())
    return linear


def dino_positions(model: Any, patches: torch.Tensor) -> torch.Tensor:
    """(B, h, w, C) patches to (B, 1 + h * w, C) tokens, positions added as DINO's code adds them.

    Its bicubic interpolation scales by (h + 0.1) / 28, not by h / 28, which moves every sample,
    and does not smooth when it shrinks.
    """
    _, h, w, channels = patches.shape
    rows, columns = model.patch_embed.grid_size
    positions = model.pos_embed[:, 1:].float()
    if (h, w) != (rows, columns):
        positions = F.interpolate(
            positions.reshape(1, rows, columns, channels).permute(0, 3, 1, 2),
            scale_factor=((h + 0.1) / rows, (w + 0.1) / columns),
            mode="bicubic",
        )
        positions = positions.permute(0, 2, 3, 1).flatten(1, 2)
    first = (model.cls_token + model.pos_embed[:, :1]).expand(len(patches), -1, -1)
    return torch.cat([first, patches.flatten(1, 2) + positions], dim=1)
