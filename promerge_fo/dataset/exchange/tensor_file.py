"""Predictions as torchvision's detectors return them, in a file of ``torch.save``."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promerge_fo.annotations.json_stream import Element
from promerge_fo.annotations.rle import mask_record

if TYPE_CHECKING:
    import torch

__all__ = ["is_tensor_file", "tensor_entries"]

THRESHOLD = 0.5  #: over which a pixel of torchvision's masks is foreground
_WANTED = (
    "a list with a dictionary of boxes, scores, labels and masks for each sample, or such "
    "dictionaries by image id or file name"
)


def is_tensor_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one of ``torch.save``, by its name."""
    return Path(path).suffix.lower() in (".pt", ".pth")


def tensor_entries(path: Path, samples: Sequence[str]) -> Iterator[Element]:
    """The predictions of a file, as the entries of a results file in COCO's format.

    Code in the file is not executed.

    Args:
        path: a file with a list of dictionaries, one for each sample, or with a dictionary of them
            by image id or file name. Each has ``boxes`` (n, 4) XYXY in pixels, and perhaps
            ``scores`` (n,), ``labels`` (n,) and ``masks`` (n, 1, H, W) or (n, H, W).
        samples: the paths of the samples, in the order of the list.

    Yields:
        An element for each prediction, numbered from 0.

    Raises:
        ValueError: the file holds something else; the message says what.
    """
    number = 0
    for image_id, prediction in _by_image(_load(path), samples, path):
        for entry in _entries(image_id, prediction, path):
            yield Element(None, number, entry)
            number += 1


def _load(path: Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{path} is no file of tensors that torch.save wrote whole ({reason}); it must hold "
            f"{_WANTED}"
        ) from error


def _by_image(
    content: Any, samples: Sequence[str], path: Path
) -> Iterable[tuple[Any, Mapping[str, Any]]]:
    """Each image's id, or the path of its sample, and its predictions."""
    if isinstance(content, Mapping) and "boxes" not in content:
        found = list(content.items())
    elif isinstance(content, (list, tuple)):
        if len(content) != len(samples):
            raise ValueError(
                f"{path} is a list of {len(content)} predictions for {len(samples)} samples; a "
                "list has one for each sample, in their order: import into the view that was "
                "predicted, or save a dictionary by file name"
            )
        found = list(zip(samples, content, strict=True))
    else:
        found = [(None, None)]
    for image_id, prediction in found:
        if not isinstance(prediction, Mapping) or "boxes" not in prediction:
            raise ValueError(
                f"{path} does not hold predictions as torchvision returns them, but "
                f"{type(content).__name__}; it must hold {_WANTED}"
            )
        yield image_id, prediction


def _entries(image_id: Any, prediction: Mapping[str, Any], path: Path) -> Iterator[dict[str, Any]]:
    import torch

    given = {name: prediction.get(name) for name in ("boxes", "scores", "labels", "masks")}
    tensors = {name: value for name, value in given.items() if value is not None}
    count = len(tensors["boxes"]) if isinstance(tensors["boxes"], torch.Tensor) else -1
    shapes = {"boxes": (count, 4), "scores": (count,), "labels": (count,)}
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        masks = name == "masks" and shape[:1] == (count,) and len(shape) in (3, 4)
        if not masks and shape != shapes.get(name):
            raise ValueError(
                f"{path}: {name} of {image_id!a:.200} are {shape}; boxes must be (n, 4), scores "
                "and labels (n,), masks (n, 1, H, W) or (n, H, W)"
            )
    boxes = tensors["boxes"].double().reshape(-1, 2, 2)
    boxes = torch.cat([boxes[:, 0], boxes[:, 1] - boxes[:, 0]], dim=1).tolist()
    scores, labels = (
        [None] * count if name not in tensors else tensors[name].tolist()
        for name in ("scores", "labels")
    )
    for k in range(count):
        entry = {"image_id": image_id, "category_id": labels[k], "score": scores[k]}
        entry["bbox"] = boxes[k]
        if "masks" in tensors:
            entry["segmentation"] = _rle(tensors["masks"][k])
        yield entry


def _rle(mask: torch.Tensor) -> dict[str, Any]:
    pixels = mask.reshape(mask.shape[-2:]).numpy() > THRESHOLD
    record = mask_record(pixels, 0, 0, pixels.shape)
    if record is None:  # refused like any mask without a pixel
        return {"size": list(pixels.shape), "counts": [int(np.prod(pixels.shape))]}
    return dict(record["segmentation"])
