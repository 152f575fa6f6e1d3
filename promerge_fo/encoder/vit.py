"""Patch features of any of timm's vision transformers: DINO, DINOv2, DINOv3 and others."""

from __future__ import annotations

import copy
import difflib
import functools
import importlib
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from promerge_fo.encoder.base import Encoder, Facet, Precision, Resize, ResizeMode
from promerge_fo.encoder.blocks import POST_NORM, PRE_NORM, Facets, Trunk, dino_positions
from promerge_fo.encoder.device import missing_on_cpu, out_of_memory, resolve_device
from promerge_fo.encoder.weights import load_weights

__all__ = ["VitEncoder", "import_timm", "require_model"]

_CHOICE = ("key", "query", "value", "token")  # the facets of which a calibration chooses


class VitEncoder(Encoder):
    """A vision transformer, up to the keys (or queries, values, tokens) of one of its blocks.

    Keys, queries and values are the linear projections of the block's attention, heads
    concatenated, before any normalisation or rotation (RoPE) that a model applies to them. Tokens
    are the block's output; normed tokens are that after the model's final norm. Class and register
    tokens are dropped. The layers after the chosen facet are neither calculated nor kept in memory.
    Attention uses torch's fused kernels.

    DINO's models ("....dino") interpolate their position embeddings exactly as DINO's own code
    does, other models as timm does. Images are normalised by the model's own mean and deviation.

    In ``"fp32"``, no step uses TF32 unless the application allows it for matrix products
    (``torch.set_float32_matmul_precision``). In ``"bf16"``, matrix products and attention are
    bfloat16, while weights of norms, sums along the residual stream and the features are float32.

    Args:
        name: a timm model name, with or without a pretraining tag.
        checkpoint: a local file with weights; None downloads timm's, once.
        facet: ``"key"`` (the paper's choice), ``"query"``, ``"value"``, ``"token"`` or
            ``"normed_token"``. None takes keys, and lets a calibration choose of :attr:`facets`.
        device: a torch device; None is CUDA or Apple's GPU if there is one, else the CPU.
        precision: ``"fp32"``, ``"bf16"``, or ``"auto"``: bf16 where the device is fast at it
            (CUDA devices of compute capability 8.0 and up, and CPUs with AMX or AVX512-BF16),
            else fp32.
        image_size: side in pixels of a square image, rounded down to whole patches.
        resize: ``"square"`` or ``"aspect"``, see :class:`~promerge_fo.encoder.base.Resize`.
        compile: compile the blocks by ``torch.compile``. All of them share one compiled code for
            batches and images of any size; it is compiled at the first batch of several images,
            and again at the first of a single image, which takes seconds to a minute each. It
            needs a C++ compiler on a CPU, and Triton on CUDA. If compiling fails there is one
            warning, and the encoder goes on without it. The features are the same up to rounding,
            so this is no part of :meth:`identity`.
        block: the block whose facet is taken, from 1; None is the last.
        embed_facet: the facet of which embeddings are made; None is ``facet``, also where a
            calibration chooses it.
        embed_block: the block of which embeddings are made, from 1; None is ``block``. It takes
            part in the same pass, and a later one than ``block`` makes that pass longer.

    Raises:
        ValueError: an unknown or unsuitable model, or an argument out of its range.
        WeightsError: the weights cannot be had, or a checkpoint does not fit the model.
        ImportError: timm cannot be imported.
    """

    def __init__(
        self,
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
    ) -> None:
        for each in (facet, embed_facet):
            if each is not None and each not in get_args(Facet):
                raise ValueError(f"facet is {each!r}, but must be one of {get_args(Facet)}")
        where = resolve_device(device)
        resolved = _resolve_precision(precision, where)
        model = _create(name)
        transform = Resize(image_size, model.patch_embed.patch_size[0], resize)
        weights = load_weights(model, name, checkpoint)
        blocks, final_norm = list(model.blocks), model.norm
        at = _number_of(len(blocks) if block is None else block, len(blocks), name)
        embed_at = _number_of(at if embed_block is None else embed_block, len(blocks), name)
        self._block = None if at == len(blocks) else at
        self._embed_block = None if embed_at == len(blocks) else embed_at
        self._embed_facet = embed_facet
        super().__init__(
            name=name,
            facet=facet or "key",
            precision=resolved,
            transform=transform,
            device=where,
            weights_sha256=weights.sha256,
            weights_source=weights.source,
        )
        config = model.pretrained_cfg
        self._mean, self._std = tuple(config["mean"]), tuple(config["std"])
        self._pixel_mean = torch.tensor(self._mean, device=where) * 255
        self._pixel_std = torch.tensor(self._std, device=where) * 255
        self._position = "dino" if config.get("tag") == "dino" else "timm"
        self._prefix_tokens = int(model.num_prefix_tokens)
        self._has_class_token = getattr(model, "cls_token", None) is not None

        for each in blocks:
            each.attn.fused_attn = True  # even if TIMM_FUSED_ATTN disables it
        self._heads = int(blocks[at - 1].attn.num_heads)
        self.facets = _CHOICE if facet is None else (facet,)
        first, last = sorted((at, embed_at))
        if first < last and getattr(model, "rope_mixed", False):
            raise ValueError(
                f"each block of {name} has positions of its own, so embeddings of block {embed_at} "
                "are not made in the same pass: segment without them, and embed afterwards"
            )
        own = self.facets if embed_facet is None else (embed_facet,)
        facets = {*self.facets, "query", *(own if first == last else ())}
        masks = Facets(blocks[at - 1], final_norm, sorted(facets))
        embeddings = masks if first == last else Facets(blocks[embed_at - 1], final_norm, own)
        between = nn.ModuleList(blocks[first - 1 : last - 1])
        model.blocks = model.blocks[:first]
        parts = {"trunk": Trunk(model), "between": between, "masks": masks, "embed": embeddings}
        self._between, self._is_embedded_first = list(between), embed_at < at
        if self._position == "dino":
            model._pos_embed = functools.partial(dino_positions, model)
        self._parts = nn.ModuleDict(parts).eval().requires_grad_(False)
        if resolved == "bf16":
            for module in self._parts.modules():
                if isinstance(module, nn.Linear):
                    module.to(torch.bfloat16)
        self._parts.to(where)
        self._compiled: list[nn.Module] = []
        if compile:
            self._compile()

    @property
    def has_prompt_scores(self) -> bool:
        """Whether the model has a class token."""
        return self._has_class_token

    @property
    def wants_calibration(self) -> bool:
        """Whether the paper's thresholds were made for other features: DINO's last block."""
        return self._position != "dino" or self._block is not None

    def with_facet(self, facet: str) -> Encoder:
        """The same encoder with one of :attr:`facets`; the weights are shared."""
        if facet not in self.facets:
            return super().with_facet(facet)
        chosen = copy.copy(self)
        chosen.facet, chosen.facets = facet, (facet,)
        return chosen

    def facets_of(self, pixels: NDArray[np.uint8]) -> dict[str, torch.Tensor]:
        """All :attr:`facets` of one image, in one pass through the model."""
        self._check(pixels)
        on_host = self._on_host([pixels], torch.uint8)
        features, _, _ = self._run_or_uncompiled(on_host, self.facets, False, False)
        return {facet: images[0] for facet, images in features.items()}

    def identity(self) -> dict[str, Any]:
        """Everything that decides the features, in types that JSON has: for the run hash."""
        return {
            **super().identity(),
            **({} if self._block is None else {"block": self._block}),
            "mean": list(self._mean),
            "std": list(self._std),
            "position_embedding": self._position,
        }

    def embedding_identity(self) -> dict[str, Any]:
        """What :meth:`identity` is of an encoder whose features are those of embeddings."""
        own = {**self.identity(), "facet": self._embed_facet or self.facet}
        if self._embed_block is None:
            own.pop("block", None)
            return own
        return {**own, "block": self._embed_block}

    def _compile(self) -> None:
        # Block by block: all of them share one compiled code, without the parts that depend on the
        # image's shape (positions, RoPE). dynamic: any number of images and patches.
        # No CUDA graphs: the next batch would overwrite their outputs.
        kinds = PRE_NORM + POST_NORM
        self._compiled = [m for m in self._parts.modules() if type(m).__name__ in kinds]
        try:
            for block in self._compiled:
                block.compile(dynamic=True)
        except Exception as error:  # such as a Python that this torch cannot compile for
            self._give_up_compiling(error)

    def _give_up_compiling(self, error: Exception) -> None:
        for block in self._compiled:
            block._compiled_call_impl = None
        self._compiled = []
        reason = " ".join(str(error).split())[:300]
        warnings.warn(
            f"{self.name} could not be compiled ({type(error).__name__}: {reason}); it runs "
            "uncompiled from here on, with the same features up to rounding. compile=True needs "
            "a C++ compiler on a CPU, and Triton on CUDA",
            stacklevel=5,
        )

    def _encode(
        self, pixels: torch.Tensor, with_prompt_scores: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        features, scores, _ = self._run_or_uncompiled(
            pixels, (self.facet,), with_prompt_scores, False
        )
        return features[self.facet], scores

    def _encode_for_both(
        self, pixels: torch.Tensor, with_prompt_scores: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        features, scores, embeddings = self._run_or_uncompiled(
            pixels, (self.facet,), with_prompt_scores, True
        )
        own = features[self.facet]
        return own, scores, own if embeddings is None else embeddings

    def _run_or_uncompiled(
        self,
        pixels: torch.Tensor,
        facets: Sequence[str],
        with_prompt_scores: bool,
        with_embeddings: bool,
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None, torch.Tensor | None]:
        if self._compiled:
            try:
                return self._run(pixels, facets, with_prompt_scores, with_embeddings)
            except Exception as error:  # the compilers' errors have no common class
                if out_of_memory(error):
                    raise
                self._give_up_compiling(error)
        return self._run(pixels, facets, with_prompt_scores, with_embeddings)

    @torch.no_grad()  # not inference_mode: autograd can use these tensors
    def _run(
        self,
        pixels: torch.Tensor,
        facets: Sequence[str],
        with_prompt_scores: bool,
        with_embeddings: bool,
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None, torch.Tensor | None]:
        """Facets by name; prompt scores; the features of embeddings, if they are others."""
        grid = pixels.shape[1] // self.patch_size, pixels.shape[2] // self.patch_size
        with nullcontext() if self._compiled else missing_on_cpu(self.device):
            features, scores, embeddings = self._calculate(
                pixels, facets, with_prompt_scores, with_embeddings, grid
            )
        there = self.features_device
        return (
            {facet: values.to(there) for facet, values in features.items()},
            None if scores is None else scores.to(there),
            None if embeddings is None else embeddings.to(there),
        )

    def _calculate(
        self,
        pixels: torch.Tensor,
        facets: Sequence[str],
        with_prompt_scores: bool,
        with_embeddings: bool,
        grid: tuple[int, int],
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None, torch.Tensor | None]:
        parts, own = self._parts, self._embed_facet or self.facet
        pixels = pixels.to(self.device, non_blocking=self.device.type == "cuda")
        normalised = ((pixels.float() - self._pixel_mean) / self._pixel_std).permute(0, 3, 1, 2)
        described = None
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False
        ):
            tokens, context = parts["trunk"](normalised)
            if with_embeddings and self._is_embedded_first:
                described = parts["embed"](own, tokens, context)
            if self._is_embedded_first:
                tokens = self._go_on(tokens, context)
            found = {facet: parts["masks"](facet, tokens, context) for facet in facets}
            queries = parts["masks"]("query", tokens, context) if with_prompt_scores else None
            if with_embeddings and not self._is_embedded_first and not self._is_same(own, found):
                described = parts["embed"](own, self._go_on(tokens, context), context)
        features = {facet: self._patches(values, grid) for facet, values in found.items()}
        return (
            features,
            None if queries is None else self._prompt_scores(queries.float()).reshape(-1, *grid),
            None if described is None else self._patches(described, grid),
        )

    def _is_same(self, facet: str, found: Mapping[str, torch.Tensor]) -> bool:
        """Whether the features of embeddings are among those of masks."""
        return facet in found and not self._between

    def _go_on(self, tokens: torch.Tensor, context: dict[str, Any]) -> torch.Tensor:
        """From the input of the earlier block to that of the later one."""
        for block in self._between:
            tokens = block(tokens, **context)
        return tokens

    def _patches(self, values: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """(B, tokens, C) to float32 (B, C, h, w), without class and register tokens."""
        # One copy in either precision: bf16 becomes float32 while it is transposed.
        patches = values[:, self._prefix_tokens :].transpose(1, 2)
        patches = patches.to(torch.float32, memory_format=torch.contiguous_format).contiguous()
        return patches.reshape(*patches.shape[:2], *grid)

    def _prompt_scores(self, queries: torch.Tensor) -> torch.Tensor:
        """(B, patches): cosine of class and patch query, summed over the heads (App. C)."""
        heads = F.normalize(queries.reshape(*queries.shape[:2], self._heads, -1), dim=3)
        return (heads[:, self._prefix_tokens :] * heads[:, :1]).sum(dim=(2, 3))


def _resolve_precision(precision: str, device: torch.device) -> str:
    if precision not in get_args(Precision):
        raise ValueError(f"precision is {precision!r}, but must be one of {get_args(Precision)}")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)  # older ones emulate it
    else:
        checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        fast = device.type == "cpu" and any(getattr(torch.cpu, c, bool)() for c in checks)
    return "bf16" if fast else "fp32"


def _version(package: str) -> str:
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return f"no {package}"


def import_timm() -> Any:
    """The module timm.

    Raises:
        ImportError: it cannot be imported; the message explains the most common reason.
    """
    try:
        return importlib.import_module("timm")
    except Exception as error:  # ImportError, or torchvision's RuntimeError or AttributeError
        versions = ", ".join(_version(p) for p in ("torch", "torchvision", "timm"))
        raise ImportError(
            f"timm cannot be imported here ({type(error).__name__}: {error}). Installed: "
            f"{versions}. torch and torchvision must be builds for each other, both for "
            "CUDA or both for the CPU, from one index: pip install --force-reinstall torch "
            "torchvision"
        ) from error


def require_model(name: str) -> None:
    """Refuse a name that is none of timm's.

    Raises:
        ValueError: there is no such model; the message names those that are spelt alike.
        ImportError: as :func:`import_timm`.
    """
    timm = import_timm()
    plain, tagged = timm.list_models(), timm.list_models(pretrained=True)
    if name not in plain and name not in tagged:
        near = difflib.get_close_matches(name, tagged + plain, n=3)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(
            f"there is no timm model {name!r}{hint} "
            "('texture' is the encoder without weights; timm.list_models('vit*') names the others)"
        )


class _Unfilled(TorchFunctionMode):
    """Layers are made without random values, which take longer than the weights that follow."""

    _RANDOM = frozenset(
        {
            torch.Tensor.uniform_, torch.Tensor.normal_, torch.Tensor.erfinv_,
            nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_,
        }
    )  # fmt: skip

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in self._RANDOM:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def _create(name: str) -> Any:
    """A timm vision transformer, for images of any size; its weights are still to be loaded."""
    require_model(name)
    timm = import_timm()
    from timm.layers import PatchEmbed
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    try:
        with _Unfilled():
            model = timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True)
    except TypeError:  # an argument that only vision transformers take
        model = None
    if not isinstance(model, (VisionTransformer, Eva)):
        raise ValueError(
            f"{name} is no plain vision transformer (VisionTransformer or Eva in timm), so it has "
            "no last-block keys on a patch grid; use a name that starts with 'vit_' or 'eva'"
        )
    size = model.patch_embed.patch_size
    if not (
        isinstance(model.patch_embed, PatchEmbed)  # and no convolutional stem
        and size[0] == size[1]
        and type(model.blocks[-1]).__name__ in PRE_NORM + POST_NORM
        and type(model.blocks[-1].attn).__name__ in ("Attention", "AttentionRope", "EvaAttention")
    ):
        raise ValueError(
            f"{name} has a hybrid stem, parallel blocks or a special attention, which are not "
            "supported; use a plain model such as vit_base_patch8_224.dino"
        )
    return model


def _number_of(block: int, depth: int, name: str) -> int:
    """A block's number, from 1, checked."""
    if block != int(block) or not 1 <= block <= depth:
        raise ValueError(f"block is {block}, but {name} has the blocks 1 to {depth}")
    return int(block)
