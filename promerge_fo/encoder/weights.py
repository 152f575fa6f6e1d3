"""A model's weights, from the Hugging Face hub or from a file, checked before use."""

from __future__ import annotations

import argparse
import pickle
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promerge_fo.files import sha256_of

if TYPE_CHECKING:
    import torch

__all__ = [
    "Weights",
    "WeightsError",
    "hub_trouble",
    "load_weights",
    "plain_state",
    "read_checkpoint",
]

HUB_TIMEOUT_S = 5.0
"""Seconds to wait for the Hugging Face hub."""

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
_WRAPPERS = ("teacher", "state_dict_ema", "model_ema", "student", "state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "backbone.", "encoder.", "teacher.", "student.")
_SIGNS_OF_CODE = ("Unsupported global", "Unsupported class", "unrecognized function")
_UNUSED = ("norm.", "fc_norm.", "head.", "head_dist.", "attn_pool.")  # after the last block
_PRETRAINING = ("mask_token", "dino_head.", "ibot_head.", "projector.", "projection_head.")


class WeightsError(RuntimeError):
    """Weights that cannot be found, read or used; the message says why and what to do."""


@dataclass(frozen=True)
class Weights:
    """Where a model's weights came from.

    Attributes:
        sha256: SHA-256 of the file, 64 hexadecimal digits.
        source: the file's path, or the hub repository, as text.
    """

    sha256: str
    source: str


def load_weights(model: torch.nn.Module, name: str, checkpoint: str | Path | None) -> Weights:
    """Fill a timm model with weights.

    Args:
        model: a timm ``VisionTransformer`` or ``Eva``.
        name: its timm name, for messages.
        checkpoint: a ``.safetensors`` file, or one that ``torch.save`` wrote (``.pth``, ``.pt``,
            ``.bin``), with a state dict in timm's, DINO's, DINOv2's or DINOv3's layout: plain, or
            under "teacher", "student", "state_dict" or "model", with or without the prefixes
            "module.", "backbone." and "encoder."; heads are ignored. A teacher is preferred to a
            student. Code in a file is never executed. None downloads timm's weights, once.

    Raises:
        WeightsError: the weights cannot be downloaded, the file is no checkpoint, or it is one of
            another model.
    """
    if checkpoint is None:
        config: Any = model.pretrained_cfg
        repository = str(config.get("hf_hub_id") or "")
        path = _from_hub(repository, name, config.get("hf_hub_filename"))
        source = f"Hugging Face hub: {repository}"
    else:
        path = Path(checkpoint).expanduser()
        source = str(path.resolve())
    _fill(model, name, path, plain_state(read_checkpoint(path), path))
    return Weights(sha256_of(path), source)


def _from_hub(repository: str, name: str, filename: str | None) -> Path:
    """The cached file, or a download of it; fails within seconds if the hub cannot be reached."""
    import huggingface_hub as hub

    if not repository:
        raise _no_weights(name, "timm publishes no weights under this name")
    repository, _, revision = repository.partition("@")
    files = (filename,) if filename else _HUB_FILES
    for file in files:
        cached = hub.try_to_load_from_cache(repository, file, revision=revision or None)
        if isinstance(cached, str):
            return Path(cached)
    if trouble := hub_trouble():
        raise _no_weights(name, trouble)
    for file in files:
        if path := _download(repository, file, revision or None, name):
            return path
    raise _no_weights(name, f"{repository} holds none of {', '.join(files)}")


def _download(repository: str, file: str, revision: str | None, name: str) -> Path | None:
    """The downloaded file; None if the repository has no such file."""
    import huggingface_hub as hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hub.hf_hub_download(repository, file, revision=revision))
    except Exception as error:
        # "Local": it is not in the cache, and the hub could not be asked.
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        raise _no_weights(name, f"{type(error).__name__}: {error}") from error


def hub_trouble() -> str | None:
    """Why the hub cannot be reached, or None. A download would retry for most of a minute."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "they are not in the cache, and HF_HUB_OFFLINE is set"
    trouble = [f"{constants.ENDPOINT} did not answer within {HUB_TIMEOUT_S:g} s"]

    def knock() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
            trouble.clear()
        except Exception as error:
            trouble[:] = [f"{constants.ENDPOINT} cannot be reached ({error})"]

    # In a thread, because name resolution has no time-out.
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT_S)
    return trouble[0] if trouble else None


def _no_weights(name: str, reason: str) -> WeightsError:
    return WeightsError(
        f"the weights of {name} could not be had: {reason}. There are three ways out: connect to "
        "the Hugging Face hub (the weights are downloaded once); or give a local file, such as "
        "checkpoint='dino_vitbase8_pretrain.pth' for vit_base_patch8_224.dino; or use the encoder "
        "'texture', which needs no weights (a demonstration aid, far less accurate)"
    )


def read_checkpoint(path: Path) -> Any:
    """The content of a checkpoint file; code in it is not executed.

    Args:
        path: a ``.safetensors`` file, or one that ``torch.save`` wrote.

    Raises:
        WeightsError: the file is missing or broken, or holds code.
    """
    import torch

    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise WeightsError(f"checkpoint {path} {what}; give a file with weights")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # of DINO's options
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if any(sign in str(error) for sign in _SIGNS_OF_CODE):
            raise WeightsError(
                f"checkpoint {path} holds more than weights: reading it would execute code, which "
                "is refused. If you trust it, save its state dict alone, with "
                "torch.save(model.state_dict(), path) or as .safetensors"
            ) from error
        raise _not_a_checkpoint(path, "not what torch.save writes") from error
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise _not_a_checkpoint(path, reason[:160]) from error


def _not_a_checkpoint(path: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"checkpoint {path} is no checkpoint, or it is broken ({reason}); expected a file that "
        "torch.save wrote, or a .safetensors file. Download it again"
    )


def plain_state(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """The bare state dict: unwrapped, without prefixes, tensors only.

    Args:
        content: from :func:`read_checkpoint`.
        path: for messages.

    Raises:
        WeightsError: there are no tensors.
    """
    import torch

    while isinstance(content, Mapping):
        wrapper = next((k for k in _WRAPPERS if isinstance(content.get(k), Mapping)), None)
        if wrapper is None:
            break
        content = content[wrapper]
    tensors = content.items() if isinstance(content, Mapping) else ()
    state = {str(k): v for k, v in tensors if isinstance(v, torch.Tensor)}
    if not state:
        raise WeightsError(
            f"checkpoint {path} holds no weights (it is a {type(content).__name__}); expected a "
            "state dict, plain or under one of: " + ", ".join(_WRAPPERS)
        )
    while prefix := next((p for p in _PREFIXES if any(k.startswith(p) for k in state)), None):
        state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return state


def _fill(model: torch.nn.Module, name: str, path: Path, state: dict[str, torch.Tensor]) -> None:
    """Load a state dict, which must have every tensor up to the last block, in its shape."""
    from timm.models import eva, vision_transformer

    wanted = model.state_dict()
    problems = _resampled(model, state)
    if not problems:
        try:  # timm's own translation of DINOv2's, DINOv3's, DeiT's and CLIP's names
            if isinstance(model, eva.Eva):
                state = eva.checkpoint_filter_fn(dict(state), model)
            else:
                state = vision_transformer.checkpoint_filter_fn(dict(state), model, True)
        except Exception as error:
            problems.append(f"timm cannot translate it ({type(error).__name__}: {error})")
    if not problems:
        missing = [k for k in wanted if k not in state and not k.startswith(_UNUSED)]
        extra = [k for k in state if k not in wanted and not k.startswith(_UNUSED + _PRETRAINING)]
        shapes = [
            f"{k} is {_shape(state[k])} instead of {_shape(wanted[k])}"
            for k in wanted
            if k in state and not k.startswith(_UNUSED) and state[k].shape != wanted[k].shape
        ]
        problems += _few("of another shape", shapes)
        problems += _few("missing", missing)
        problems += _few("unexpected", extra)
    if problems:
        raise WeightsError(
            f"checkpoint {path} does not fit {name}: {'; '.join(problems)}. "
            "Give the timm name of the model that it holds, or another file"
        )
    model.load_state_dict({k: v for k, v in state.items() if k in wanted}, strict=False)


def _resampled(model: Any, state: Mapping[str, torch.Tensor]) -> list[str]:
    """Tensors for another patch or image size, which timm would resample without a word."""
    problems = []
    patch, wanted_patch = state.get("patch_embed.proj.weight"), model.patch_embed.proj.weight
    if patch is not None and patch.ndim == 4 and patch.shape != wanted_patch.shape:
        problems.append(
            f"patch_embed.proj.weight is {_shape(patch)} instead of {_shape(wanted_patch)}"
        )
    position, wanted = state.get("pos_embed"), model.pos_embed
    if position is not None and wanted is not None and position.ndim == 3:
        patches = model.patch_embed.num_patches
        if not patches <= position.shape[1] <= patches + model.num_prefix_tokens:
            problems.append(f"pos_embed is {_shape(position)} instead of {_shape(wanted)}")
    return problems


def _few(what: str, items: list[str]) -> list[str]:
    """``["3 missing: a, b, ..."]``, or an empty list if there are no items."""
    shown = ", ".join(items[:4]) + (", ..." if len(items) > 4 else "")
    return [f"{len(items)} {what}: {shown}"] if items else []


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
