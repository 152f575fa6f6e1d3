"""Predictions of a trained detector, in the JSON format that COCO's tools exchange."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from promerge_fo.annotations.json_stream import read_elements
from promerge_fo.detector.annotations import CLASS_AGNOSTIC, find_annotations
from promerge_fo.detector.config import DetectorConfig, detectron2_config
from promerge_fo.detector.data import resized, target_size
from promerge_fo.detector.job import FINAL, RECORD
from promerge_fo.detector.requirement import require_detectron2
from promerge_fo.detector.weights import layout_of, load_detector, read_detector
from promerge_fo.files import whole_file, write_json_list
from promerge_fo.images import ImageError, load_image
from promerge_fo.machine import available_cpus
from promerge_fo.progress import ShowProgress, progress_bar

if TYPE_CHECKING:
    import torch

__all__ = ["PredictionReport", "detect", "find_detector", "load_trained", "predict"]


@dataclass(frozen=True)
class PredictionReport:
    """What a prediction run did.

    Attributes:
        path: of the predictions.
        images: that were looked at.
        predictions: that were written.
        failed: images that could not be read, each as a line that says why.
    """

    path: str
    images: int
    predictions: int
    failed: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.path}: {self.predictions} predictions on {self.images} images"
        if self.failed:
            text += f"\n{len(self.failed)} images could not be read:"
            text += "".join(f"\n  {line}" for line in self.failed)
        return text


def predict(
    detector: str | os.PathLike[str],
    images: Any,
    output: str | os.PathLike[str] = "coco_instances_results.json",
    *,
    image_root: str | os.PathLike[str] | None = None,
    min_score: float = 0.0,
    batch_size: int = 1,
    device: str | None = None,
    num_workers: int | None = None,
    config: DetectorConfig | None = None,
    progress: ShowProgress = None,
) -> PredictionReport:
    """Run a detector over images and write what it finds.

    The file is a list of ``image_id``, ``category_id`` (1), ``bbox`` (XYWH in pixels), ``score``
    and ``segmentation`` (compressed RLE at the image's size), the best of an image first; it is
    written as a stream, and appears when it is whole. Of a detector that was trained with classes,
    ``category_id`` is that of the labels it learned from, and ``category_name`` stands beside it.
    :func:`~promerge_fo.dataset.import_predictions` takes it into a dataset.

    Args:
        detector: a checkpoint (``.pth``) of a Cascade Mask R-CNN with ResNet-50 (of
            :func:`~promerge_fo.detector.train`, or CutLER's), or the folder of a training, whose
            last round is taken.
        images: a COCO annotation file or the folder of an export, whose ``images`` are taken with
            their ids; or a FiftyOne dataset or view, numbered as exports of it are.
        output: the file to write, which replaces one that exists.
        image_root: for an annotation file: the folder that its names are relative to.
        min_score: the lowest score to write, in [0, 1].
        batch_size: images that the network takes together. Images of a batch are padded to one
            size, which changes results a little.
        device: "cuda", "cpu"; None is a GPU if there is one.
        num_workers: processes that read images; None is one for each CPU core, 8 at most.
        config: size of images and number of detections; None is that of the training, where its
            record lies beside the checkpoint.
        progress: whether to show a progress bar (None: as FiftyOne's config says), or a function
            that makes one; see :data:`promerge_fo.progress.ShowProgress`.

    Raises:
        ImportError: detectron2 cannot be imported.
        WeightsError: no such checkpoint, or one of another network.
        ValueError: there are no images, or the score is out of its range.
    """
    import torch

    require_detectron2()
    if not 0 <= min_score <= 1:
        raise ValueError(f"min_score is {min_score}, but must lie in [0, 1]")
    checkpoint = find_detector(detector)
    listed = _listed(images, image_root)
    config = config or _config_beside(checkpoint)
    model, categories = load_trained(checkpoint, config, device)
    loader: Any = torch.utils.data.DataLoader(
        _Images([path for _, path in listed]),  # type: ignore[arg-type]
        batch_size=batch_size,
        num_workers=min(8, available_cpus()) if num_workers is None else num_workers,
        collate_fn=list,
    )
    failed: list[str] = []
    named = [_category(*each) for each in categories.items()]

    def found() -> Iterator[dict[str, Any]]:
        for batch in loader:
            failed.extend(item for _, item in batch if isinstance(item, str))
            readable = [(k, item) for k, item in batch if not isinstance(item, str)]
            results = detect(model, [image for _, image in readable], config)
            for (k, _), result in zip(readable, results, strict=True):
                yield from _entries(listed[k][0], result, min_score, named)
            bar.update(len(batch))

    target = Path(output).expanduser().absolute()
    with progress_bar(progress, len(listed)) as bar, whole_file(target, "w") as out:
        written = write_json_list(out, found())
        out.write("\n")
    return PredictionReport(str(target), len(listed) - len(failed), written, tuple(failed))


def find_detector(detector: str | os.PathLike[str]) -> Path:
    """The checkpoint that a path means: the file, or the last finished round of a training.

    Raises:
        FileNotFoundError: there is none.
    """
    given = Path(detector).expanduser().absolute()
    if not given.is_dir():
        return given  # whether it is there is said where it is read
    rounds = {int(p.parent.name[len("round") :]): p for p in given.glob(f"round[0-9]*/{FINAL}")}
    if not rounds:
        raise FileNotFoundError(
            f"{given} holds no trained detector (round1/{FINAL}); let the training finish, "
            "or give one of its checkpoints (.pth)"
        )
    return rounds[max(rounds)]


def load_trained(
    checkpoint: str | os.PathLike[str], config: DetectorConfig, device: str | None = None
) -> tuple[torch.nn.Module, Mapping[int, str]]:
    """A detector ready to predict, and the names of its classes by category id, in their order.

    Args:
        checkpoint: a ``.pth`` file.
        config: number of detections.
        device: "cuda", "cpu"; None is a GPU if there is one.

    Raises:
        WeightsError: no such checkpoint, or one of another network.
    """
    from promerge_fo.detector.heads import build
    from promerge_fo.encoder.device import resolve_device

    place = resolve_device(device)
    state, categories = read_detector(checkpoint)
    layout = layout_of(state, checkpoint, len(categories))
    model = build(detectron2_config(config, str(place), layout))
    load_detector(model, state, checkpoint)
    return model.eval(), categories


def detect(
    model: torch.nn.Module, images: Sequence[NDArray[np.uint8]], config: DetectorConfig
) -> list[Any]:
    """What a detector finds on images.

    Args:
        model: in evaluation mode.
        images: (H, W, 3) uint8 RGB, each of its own size.
        config: the size at which the network sees them.

    Returns:
        For each image detectron2's ``Instances`` on the CPU, best first, at the image's own size:
        ``pred_boxes``, ``scores``, ``pred_classes`` and ``pred_masks`` (n, H, W) bool.
    """
    import torch

    if not images:
        return []
    inputs = []
    for image in images:
        height, width = image.shape[:2]
        size = target_size((height, width), config.test_short_side, config.long_side)
        pixels = torch.from_numpy(np.ascontiguousarray(resized(image, size).transpose(2, 0, 1)))
        inputs.append({"image": pixels, "height": height, "width": width})
    with torch.inference_mode():
        return [output["instances"].to("cpu") for output in model(inputs)]


def _category(number: int, name: str) -> dict[str, Any]:
    """What a prediction says of its class."""
    category: dict[str, Any] = {"category_id": number}
    return category if name == CLASS_AGNOSTIC.get(number) else {**category, "category_name": name}


def _entries(
    number: int, found: Any, min_score: float, categories: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """One image's predictions as COCO's tools exchange them, without masks of no pixel."""
    from detectron2.evaluation.coco_evaluation import instances_to_coco_json

    kept = found[(found.scores >= min_score) & found.pred_masks.flatten(1).any(dim=1)]
    return [
        {
            **entry,
            **categories[entry["category_id"]],
            "bbox": [round(x, 2) for x in entry["bbox"]],
        }
        for entry in instances_to_coco_json(kept, number)
    ]


class _Images:
    """Images with their numbers, read when they are asked for; text says why one cannot be read."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = np.array([os.fsencode(path) for path in paths])  # shared by workers

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[int, NDArray[np.uint8] | str]:
        try:
            return index, load_image(os.fsdecode(self._paths[index]))
        except ImageError as error:
            return index, str(error)


def _listed(images: Any, image_root: str | os.PathLike[str] | None) -> list[tuple[int, str]]:
    """The id and the file of every image."""
    if isinstance(images, (str, os.PathLike)):
        file, root = find_annotations(images, image_root)
        entries = (e.value for e in read_elements(file) if e.section == "images")
        listed = [(entry["id"], str(root / entry["file_name"])) for entry in entries]
    else:
        from promerge_fo.dataset.samples import images_of
        from promerge_fo.dataset.stored_labels import image_ids

        images = images_of(images)
        listed = list(zip(image_ids(images), images.values("filepath"), strict=True))
    if not listed:
        raise ValueError(f"{images} holds no images; give others")
    return listed


def _config_beside(checkpoint: Path) -> DetectorConfig:
    """The settings of the training that made a checkpoint; the defaults where they are unknown."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        record = json.loads((checkpoint.parent.parent / RECORD).read_text(encoding="utf-8"))
        return DetectorConfig.from_dict(record["config"])
    return DetectorConfig()
