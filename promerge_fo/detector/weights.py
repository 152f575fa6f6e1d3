"""Weights for the detector: DINO's ResNet-50, and checkpoints; no code in them is executed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from promerge_fo.detector.annotations import CLASS_AGNOSTIC
from promerge_fo.detector.config import Layout
from promerge_fo.encoder.weights import WeightsError, plain_state, read_checkpoint
from promerge_fo.words import is_text

if TYPE_CHECKING:
    import torch

__all__ = [
    "Detector",
    "layout_of",
    "load_backbone",
    "load_detector",
    "read_detector",
    "refuse_pickle",
    "require_backbone",
    "require_detector",
    "to_detectron2_names",
]

DINO_RESNET50 = (
    "https://dl.fbaipublicfiles.com/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth"
)
"""Where the authors of DINO publish its ResNet-50."""

_DETECTORS = (
    "Give a class-agnostic Cascade Mask R-CNN with ResNet-50, such as CutLER's, or any that "
    "promerge train has made (model_final.pth)"
)
_BACKBONE = "backbone.bottom_up."
_PART = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
# torchvision's names, and where detectron2 has the same tensors
_RENAMES = [
    (re.compile(r"conv1\.weight"), r"stem.conv1.weight"),
    (re.compile(rf"bn1\.{_PART}"), r"stem.conv1.norm.\1"),
    (re.compile(r"layer(\d)\.(\d+)\.conv(\d)\.weight"), r"res{stage}.\2.conv\3.weight"),
    (re.compile(rf"layer(\d)\.(\d+)\.bn(\d)\.{_PART}"), r"res{stage}.\2.conv\3.norm.\4"),
    (re.compile(r"layer(\d)\.(\d+)\.downsample\.0\.weight"), r"res{stage}.\2.shortcut.weight"),
    (re.compile(rf"layer(\d)\.(\d+)\.downsample\.1\.{_PART}"), r"res{stage}.\2.shortcut.norm.\3"),
]
_UNUSED = ("fc.", "head.")
# what detectors of the same network may have or lack
_CONSTANTS = re.compile(r"\.num_batches_tracked$|^pixel_(mean|std)$|anchor_generator\.cell_anchors")


class Detector(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        state: tensors by name.
        categories: the names of the classes by category id, in the order of the classes.
    """

    state: dict[str, torch.Tensor]
    categories: Mapping[int, str]


def read_detector(path: str | os.PathLike[str]) -> Detector:
    """A detector's checkpoint, read without executing anything in it.

    Args:
        path: a ``.pth`` file that ``promerge train`` or detectron2 wrote.

    Returns:
        Its tensors and classes; one that names none is class-agnostic.

    Raises:
        WeightsError: the file is missing, broken, without tensors, or a pickle.
    """
    import torch

    path = Path(path).expanduser()
    refuse_pickle(path)
    content = read_checkpoint(path)
    named = content.get("categories") if isinstance(content, Mapping) else None
    categories = _categories(named)
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    tensors = content.items() if isinstance(content, Mapping) else ()
    state = {str(k).removeprefix("module."): v for k, v in tensors if isinstance(v, torch.Tensor)}
    if not state:
        raise WeightsError(f"checkpoint {path} holds no weights. {_DETECTORS}")
    return Detector(state, categories)


def _categories(given: Any) -> Mapping[int, str]:
    """The classes that a checkpoint names; where it names none, or not as ours do, one."""
    if not isinstance(given, Mapping) or not given:
        return CLASS_AGNOSTIC
    named = all(type(number) is int and is_text(name) for number, name in given.items())
    return dict(given) if named else CLASS_AGNOSTIC


def require_backbone(path: str | os.PathLike[str]) -> Path:
    """The file of a backbone, which must exist and be no pickle; it is not read.

    Raises:
        WeightsError: there is no such file, or it is a pickle.
    """
    return _existing(path, f"DINO's ResNet-50 is published at {DINO_RESNET50}")


def require_detector(path: str | os.PathLike[str]) -> Path:
    """The file of a detector, which must exist and be no pickle; it is not read.

    Raises:
        WeightsError: there is no such file, or it is a pickle.
    """
    return _existing(path, _DETECTORS)


def _existing(path: str | os.PathLike[str], advice: str) -> Path:
    found = Path(path).expanduser().absolute()
    refuse_pickle(found)
    if not found.is_file():
        raise WeightsError(f"{path} does not exist. {advice}")
    return found


def refuse_pickle(path: Path) -> None:
    """Raise an error for a file that only Python's pickle reads.

    Raises:
        WeightsError: its name ends in ``.pkl`` or ``.pickle``.
    """
    if path.suffix.lower() in (".pkl", ".pickle"):
        raise WeightsError(
            f"{path} is a pickle, which executes whatever its author put into it when it is read; "
            "it is refused. Take the .pth that the same authors publish (DINO's ResNet-50 lies at "
            f"{DINO_RESNET50}), or, where you trust the file, convert it with torch.save in an "
            "environment that you can throw away"
        )


def to_detectron2_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A ResNet's tensors under the names that detectron2 gives them.

    Args:
        state: in torchvision's layout (``conv1``, ``bn1``, ``layer1.0.conv1``, ...), which is that
            of DINO's ResNet-50; the classifier's weights (``fc``) and heads are left out.

    Returns:
        The same tensors as ``stem.conv1``, ``res2.0.conv1``, ..., their normalisation as ``.norm``.

    Raises:
        ValueError: a tensor that no ResNet of torchvision has.
    """
    return {_renamed(k): tensor for k, tensor in state.items() if not k.startswith(_UNUSED)}


def _renamed(name: str) -> str:
    for pattern, template in _RENAMES:
        if found := pattern.fullmatch(name):
            if "{stage}" in template:  # torchvision counts layers from 1, detectron2 stages from 2
                template = template.replace("{stage}", str(int(found[1]) + 1))
            return found.expand(template)
    raise ValueError(f"{name!r} is no tensor of a ResNet as torchvision names them")


def load_backbone(model: torch.nn.Module, path: str | os.PathLike[str]) -> None:
    """Fill the detector's ResNet-50, and nothing else of it.

    Args:
        model: detectron2's.
        path: DINO's ``dino_resnet50_pretrain.pth`` or its full checkpoint, of which the teacher is
            taken; or any ResNet-50 in torchvision's layout.

    Raises:
        WeightsError: the file cannot be read, or holds another model.
    """
    path = Path(path).expanduser()
    refuse_pickle(path)
    state = plain_state(read_checkpoint(path), path)
    advice = (
        f"Give DINO's ResNet-50 ({DINO_RESNET50}), or another ResNet-50 in torchvision's layout"
    )
    try:
        renamed = {_BACKBONE + k: v for k, v in to_detectron2_names(state).items()}
    except ValueError as error:
        raise WeightsError(f"{path} holds no ResNet-50: {error}. {advice}") from error
    wanted = {k: v for k, v in model.state_dict().items() if k.startswith(_BACKBONE)}
    _require_fit(renamed, wanted, f"{path} holds another network than ResNet-50", advice)
    model.load_state_dict(renamed, strict=False)


def layout_of(state: Mapping[str, torch.Tensor], path: Any, classes: int = 1) -> Layout:
    """The layout of a detector's network, which the names in its checkpoint tell.

    Args:
        state: what :func:`read_detector` gives.
        path: for messages.
        classes: how many classes have names.

    Raises:
        WeightsError: it is no Cascade Mask R-CNN of detectron2, or has classes without names.
    """

    def count(pattern: str) -> int:
        return sum(re.fullmatch(pattern, name) is not None for name in state)

    scores = state.get("roi_heads.box_predictor.0.cls_score.weight")
    if scores is None or "backbone.bottom_up.stem.conv1.weight" not in state:
        raise WeightsError(f"checkpoint {path} is of another network. {_DETECTORS}")
    if len(scores) != classes + 1:
        raise WeightsError(
            f"checkpoint {path} knows {len(scores) - 1} classes, but has names of {classes}. "
            f"{_DETECTORS}"
        )
    return Layout(
        pyramid_norm="backbone.fpn_lateral2.norm.weight" in state,
        box_convolutions=count(r"roi_heads\.box_head\.0\.conv\d+\.weight"),
        box_layers=count(r"roi_heads\.box_head\.0\.fc\d+\.weight"),
        mask_norm="roi_heads.mask_head.mask_fcn1.norm.weight" in state,
        classes=classes,
    )


def load_detector(model: torch.nn.Module, state: Mapping[str, torch.Tensor], path: Any) -> None:
    """Fill a whole detector.

    Args:
        model: detectron2's, of the layout that :func:`layout_of` found.
        state: what :func:`read_detector` found in the file.
        path: for messages.

    Raises:
        WeightsError: a tensor is missing, unknown or of another shape.
    """
    _require_fit(state, model.state_dict(), f"{path} does not fit the detector", _DETECTORS)
    known = model.state_dict().keys()
    model.load_state_dict({k: v for k, v in state.items() if k in known}, strict=False)


def _require_fit(
    state: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], what: str, advice: str
) -> None:
    """Raise an error unless every tensor that is wanted is there and fits, and there are no others.

    Raises:
        WeightsError: with the number of tensors that do not fit, and one of them.
    """
    faults = {
        "are missing": [k for k in wanted if k not in state and not _CONSTANTS.search(k)],
        "are unknown": [k for k in state if k not in wanted and not _CONSTANTS.search(k)],
        "have another shape": [
            k for k in wanted if k in state and wanted[k].shape != state[k].shape
        ],
    }
    problems = [
        f"{len(names)} tensors {fault}, such as {names[0]}"
        for fault, names in faults.items()
        if names
    ]
    if problems:
        raise WeightsError(f"{what}: {'; '.join(problems)}. {advice}")
