"""The paper's benchmark datasets, loaded from the files that their owners publish."""

from __future__ import annotations

import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.utils as fou

from promerge_fo.annotations.untrusted_masks import EntryError, crop_of
from promerge_fo.dataset.labels import LABEL, place_of
from promerge_fo.files import require_inside
from promerge_fo.images import ImageError, read_header
from promerge_fo.machine import available_cpus
from promerge_fo.progress import ShowProgress, progress_bar

__all__ = ["BENCHMARKS", "Benchmark", "load_benchmark", "load_coco"]

logger = logging.getLogger("fiftyone.promerge")

_BATCH = 100  # samples added to the dataset together
_NAMED = 10  # images of another size, in the log
_INFO = "promerge_benchmark"  # key in dataset.info


@dataclass(frozen=True)
class Benchmark:
    """A set of images with ground truth, and the usual places of its files.

    Attributes:
        title: the name of the benchmark, for people to read.
        annotations: the names of annotation files in COCO's format, in the order of preference:
            the class-agnostic file of the research field, then the file of the dataset's owner.
            They are looked for in the root and in its folder ``annotations``.
        images: the folders below the root that usually hold the images; images that are in none of
            them are looked for in the whole root.
        source: where to get the files.
    """

    title: str
    annotations: tuple[str, ...]
    images: tuple[str, ...]
    source: str


BENCHMARKS = {
    "coco2017": Benchmark(
        "COCO val2017",
        ("coco_cls_agnostic_instances_val2017.json", "instances_val2017.json"),
        ("val2017", "images/val2017"),
        "https://cocodataset.org/#download (2017 Val images, 2017 Train/Val annotations)",
    ),
    "coco20k": Benchmark(
        "COCO 20K",
        ("coco20k_trainval_gt.json",),
        ("train2014", "images/train2014"),
        "https://cocodataset.org/#download (2014 Train images); the list of its 20,000 images is "
        "in coco20k_trainval_gt.json, which CutLER's dataset page links to",
    ),
    "lvis": Benchmark(
        "LVIS v1 val",
        ("lvis1.0_cocofied_val_cls_agnostic.json", "lvis_v1_val.json"),
        ("", "images"),
        "https://www.lvisdataset.org/dataset, with COCO's 2017 Train and Val images",
    ),
    "kitti": Benchmark(
        "KITTI",
        ("trainval_cls_agnostic.json",),
        ("training/image_2", "JPEGImages", "images"),
        "https://www.cvlibs.net/datasets/kitti/eval_object.php (left color images, labels)",
    ),
    "objects365": Benchmark(
        "Objects365 (patches 16 to 40, boxes only)",
        ("objects365_16-40.json", "zhiyuan_objv2_val.json"),
        ("", "val", "images", "images/val"),
        "https://www.objects365.org/download.html",
    ),
    "sa1b": Benchmark(
        "SA-1B",
        ("sa1b.json",),
        ("", "images"),
        "https://ai.meta.com/datasets/segment-anything-downloads/",
    ),
}


def load_benchmark(
    name: str,
    root: str | os.PathLike[str],
    dataset_name: str | None = None,
    *,
    limit: int | None = None,
    progress: ShowProgress = None,
) -> fo.Dataset:
    """Load one of the paper's benchmarks as a dataset, with its ground truth.

    Annotations are read from the class-agnostic file of the research field if it is there, else
    from the files of the dataset's owner: COCO's format (polygons, compressed and uncompressed RLE,
    boxes without masks, crowds), KITTI's ``label_2``, or SA-1B's JSON file for each image. The
    dataset is persistent. A load that was interrupted continues where it stopped, and a complete
    dataset is only opened.

    Args:
        name: ``"coco2017"``, ``"coco20k"``, ``"lvis"``, ``"kitti"``, ``"objects365"`` or
            ``"sa1b"``.
        root: the folder with the images and annotations of the benchmark.
        dataset_name: the name of the dataset; by default ``name``, or ``name-limit`` if a limit is
            given.
        limit: load only this number of images, the first ones by their ids.
        progress: whether to show a progress bar (None: as FiftyOne's config says), or a function
            that makes one; see :data:`promerge_fo.progress.ShowProgress`.

    Returns:
        A dataset of the images in the order of their ids, with ``coco_id``, ``metadata`` and
        ``ground_truth``: detections with the label "fg", masks (or only boxes, if the benchmark has
        no masks), ``iscrowd`` and ``annotation_id``.

    Raises:
        ValueError: the name is unknown, a file is malformed, or a dataset of this name holds
            something else.
        FileNotFoundError: files are missing; the message says which, where they should be, and
            where to get them.
    """
    if name not in BENCHMARKS:
        known = ", ".join(map(repr, BENCHMARKS))
        raise ValueError(f"there is no benchmark {name!r}; the benchmarks are: {known}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}, but must be at least 1")
    folder = Path(root).expanduser().resolve()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is no folder; give the one that {BENCHMARKS[name].title} lies in"
        )
    origin = {"benchmark": name, "root": str(folder), "limit": limit}
    dataset_name = dataset_name or (name if limit is None else f"{name}-{limit}")
    dataset = _find_existing(dataset_name, origin)
    if dataset is not None and dataset.info.get(_INFO, {}).get("complete"):
        return dataset
    images = _sort_images(_read_benchmark(name, folder), f"{folder}: images of {name}", limit)
    if dataset is None:
        dataset = fo.Dataset(dataset_name, persistent=True)
    if _INFO not in dataset.info:
        dataset.add_sample_field("coco_id", fo.IntField)
        dataset.info[_INFO] = {**origin, "complete": False}
        dataset.save()
    _add_images(dataset, images, progress)
    dataset.info[_INFO] = {**origin, "complete": True}
    dataset.save()
    return dataset


def load_coco(
    annotations: str | os.PathLike[str],
    images: str | os.PathLike[str],
    dataset_name: str | None = None,
    *,
    persistent: bool = False,
    limit: int | None = None,
    progress: ShowProgress = None,
) -> fo.Dataset:
    """Load images with ground truth in COCO's format as a class-agnostic dataset.

    Args:
        annotations: a JSON file in COCO's format, with polygons, compressed or uncompressed RLE,
            boxes without masks, or crowds.
        images: the folder with the images; they may also be in folders below it.
        dataset_name: the name of the dataset; by default FiftyOne chooses one.
        persistent: whether the dataset is kept; FiftyOne deletes other datasets when its database
            shuts down.
        limit: load only this number of images, the first ones by their ids.
        progress: whether to show a progress bar (None: as FiftyOne's config says), or a function
            that makes one; see :data:`promerge_fo.progress.ShowProgress`.

    Returns:
        A new dataset with the same fields as those of :func:`load_benchmark`.

    Raises:
        ValueError: a file is malformed, or a dataset of this name exists.
        FileNotFoundError: files are missing; the message says which.
    """
    file, folder = Path(annotations).expanduser(), Path(images).expanduser().resolve()
    if not file.is_file():
        raise FileNotFoundError(f"{file} is no file; give annotations in COCO's format (JSON)")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; give the one that the images lie in")
    origin = Benchmark(file.name, (), ("",), f"where {file.name} comes from")
    found = _sort_images(_read_coco(origin, folder, file), f"{file}: images", limit)
    dataset = fo.Dataset(dataset_name, persistent=persistent)
    dataset.add_sample_field("coco_id", fo.IntField)
    _add_images(dataset, found, progress)
    return dataset


def _sort_images(images: Iterable[_Image], what: str, limit: int | None) -> list[_Image]:
    """Images sorted by their ids, up to a limit; those that are shown at another size are left out.

    Masks and predictions of such an image would not lie on each other.
    """
    found = sorted(images, key=lambda image: image.number)
    if len({image.number for image in found}) < len(found):
        raise ValueError(
            f"{what} share ids, but each must have its own; get the annotation file again"
        )
    found = found[:limit]
    with ThreadPoolExecutor(available_cpus()) as pool:
        sizes = list(pool.map(_Image.shown_size, found))
    wrong = [
        f"{image.path} ({shown[1]} x {shown[0]}, not {image.size[1]} x {image.size[0]})"
        for image, shown in zip(found, sizes, strict=True)
        if image.size != shown
    ]
    if wrong:
        text = (
            f"{what}: {len(wrong)} are of another size than they are shown, such as "
            f"{', '.join(wrong[:_NAMED])}; annotate them as they are shown, or write the files "
            "without their EXIF orientation"
        )
        if len(wrong) == len(found):
            raise ValueError(text)
        logger.warning("%s. They are left out", text)
    return [image for image, shown in zip(found, sizes, strict=True) if image.size == shown]


def _add_images(dataset: fo.Dataset, images: Sequence[_Image], progress: ShowProgress) -> None:
    """Add the images that a dataset does not have yet."""
    present = set(dataset.values("coco_id"))
    left = [image for image in images if image.number not in present]
    with progress_bar(progress, len(images)) as bar:
        bar.update(len(images) - len(left))
        for batch in fou.iter_batches(left, _BATCH):
            samples = [image.sample() for image in batch]
            dataset.add_samples(samples, progress=False)
            bar.update(len(samples))


def _find_existing(name: str, origin: dict[str, Any]) -> fo.Dataset | None:
    """The dataset of an earlier load, complete or not; None if there is none.

    Raises:
        ValueError: a dataset of this name holds something else.
    """
    if not fo.dataset_exists(name):
        return None
    dataset = fo.load_dataset(name)
    stored = dataset.info.get(_INFO, {})
    if not stored and dataset.persistent and not dataset:  # an interruption left it empty
        return dataset
    if {key: stored.get(key) for key in origin} != origin:
        holds = f"{stored['benchmark']} of {stored['root']}" if stored else "something else"
        raise ValueError(
            f"there is a dataset {name!r} already, and it holds {holds}; give another "
            f"dataset_name, or delete it: fiftyone.delete_dataset({name!r})"
        )
    return dataset


@dataclass(frozen=True)
class _Image:
    """One image and its annotations in COCO's format.

    Attributes:
        number: the id of the image.
        path: the path of the image file.
        size: (height, width) in pixels.
        annotations: records with ``bbox``, and optionally ``segmentation``, ``iscrowd`` and ``id``.
    """

    number: int
    path: str
    size: tuple[int, int]
    annotations: Sequence[dict[str, Any]]

    def shown_size(self) -> tuple[int, int]:
        """(height, width) as the image is shown; that of the annotations if it cannot be read."""
        try:
            return read_header(self.path).size
        except ImageError:
            return self.size

    def sample(self) -> fo.Sample:
        """The image as a sample, with its ground truth."""
        height, width = self.size
        labels = [_detection(annotation, self.size) for annotation in self.annotations]
        return fo.Sample(
            filepath=self.path,
            metadata=fo.ImageMetadata(width=width, height=height),
            coco_id=self.number,
            ground_truth=fo.Detections(detections=[x for x in labels if x is not None]),
        )


def _read_benchmark(name: str, root: Path) -> Iterable[_Image]:
    """The images of a benchmark, from the first of its annotation files that exists."""
    benchmark = BENCHMARKS[name]
    candidates = [
        folder / file for file in benchmark.annotations for folder in (root, root / "annotations")
    ]
    file = next((path for path in candidates if path.is_file()), None)
    if file is not None:
        return _read_coco(benchmark, root, file)
    if name == "kitti" and (root / "training" / "label_2").is_dir():
        return _read_kitti(benchmark, root)
    if name == "sa1b" and (files := sorted(root.rglob("sa_*.json"))):
        return _read_sa1b(benchmark, files)
    also_missing = {
        "kitti": ", and there is no folder training/label_2",
        "sa1b": ", and there are no files sa_*.json",
    }.get(name, "")
    raise FileNotFoundError(
        f"{benchmark.title} has no annotations in {root}: looked for "
        f"{' and '.join(benchmark.annotations)} there and in its folder annotations{also_missing}. "
        f"Get them from {benchmark.source}"
    )


def _read_coco(benchmark: Benchmark, root: Path, file: Path) -> Iterator[_Image]:
    content = _read_json(file)
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        raise ValueError(
            f"{file} is no COCO annotation file: it has no images and annotations; give a JSON "
            "file that has both"
        )
    by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    names = [_file_name(image) for image in content["images"]]
    paths = _find_images(benchmark, root, names)
    for image, path in zip(content["images"], paths, strict=True):
        size = int(image["height"]), int(image["width"])
        yield _Image(int(image["id"]), path, size, by_image[image["id"]])


def _file_name(image: dict[str, Any]) -> str:
    """The file of an image; LVIS gives a URL instead, which ends with the folder and the file."""
    if "file_name" in image:
        return str(image["file_name"])
    return "/".join(str(image["coco_url"]).split("/")[-2:])


def _read_kitti(benchmark: Benchmark, root: Path) -> Iterator[_Image]:
    """KITTI's own labels: a text file for each image, with boxes only; "DontCare" means a crowd."""
    files = sorted((root / "training" / "label_2").glob("*.txt"))
    paths = _find_images(benchmark, root, [f"{file.stem}.png" for file in files])
    for number, (file, path) in enumerate(zip(files, paths, strict=True)):
        annotations = []
        for line in file.read_text(encoding="utf-8").splitlines():
            kind, *values = line.split()
            x0, y0, x1, y1 = map(float, values[3:7])
            annotations.append(
                {"bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": int(kind == "DontCare")}
            )
        yield _Image(number, path, read_header(path).size, annotations)


def _read_sa1b(benchmark: Benchmark, files: Sequence[Path]) -> Iterator[_Image]:
    """SA-1B's own files: a JSON file beside each image."""
    missing = []
    for file in files:
        content = _read_json(file)
        image = content["image"]
        path = file.parent / require_inside(image["file_name"])
        if not path.is_file():
            missing.append(path.name)
            continue
        size = int(image["height"]), int(image["width"])
        yield _Image(int(image["image_id"]), str(path), size, content["annotations"])
    if missing:
        raise _missing_images(benchmark, files[0].parent, missing, len(files))


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} is no JSON, or not all of it ({error}); get it again") from error


def _find_images(benchmark: Benchmark, root: Path, names: Sequence[str]) -> list[str]:
    """The paths of images: in the usual folders, else anywhere in the root.

    Raises:
        FileNotFoundError: images are missing, or several files have the name of one.
    """
    folders = [root / folder for folder in benchmark.images if (root / folder).is_dir()]
    elsewhere: dict[str, list[Path]] | None = None
    paths, missing = [], []
    for name in names:
        require_inside(name)
        places = [folder / part for folder in folders for part in (name, Path(name).name)]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            if elsewhere is None:
                elsewhere = defaultdict(list)
                for place in root.rglob("*"):
                    elsewhere[place.name].append(place)
            found = elsewhere[Path(name).name]
            path = found[0] if len(found) == 1 else None
        if path is None:
            missing.append(name)
        else:
            paths.append(str(path))
    if missing:
        raise _missing_images(benchmark, root, missing, len(names))
    return paths


def _missing_images(
    benchmark: Benchmark, root: Path, missing: Sequence[str], count: int
) -> FileNotFoundError:
    examples = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    usual = " or ".join(str(root / folder) for folder in benchmark.images if folder) or str(root)
    return FileNotFoundError(
        f"{len(missing)} of {count} images of {benchmark.title} are missing: {examples}. "
        f"They should be in {usual}; get them from {benchmark.source}"
    )


def _detection(annotation: dict[str, Any], size: tuple[int, int]) -> fo.Detection | None:
    """One annotation as a label; None if its mask is malformed or has no pixel."""
    height, width = size
    attributes: dict[str, Any] = {"iscrowd": bool(annotation.get("iscrowd", 0))}
    if "id" in annotation:
        attributes["annotation_id"] = int(annotation["id"])
    if not annotation.get("segmentation"):
        x, y, w, h = annotation["bbox"]
        box = [x / width, y / height, w / width, h / height]
        return fo.Detection(label=LABEL, bounding_box=box, **attributes)
    try:
        mask, top, left = crop_of(annotation["segmentation"], size)
    except EntryError as error:
        if error.what != "empty":
            logger.warning("annotation %s is left out: %s", annotation.get("id"), error)
        return None
    place = place_of((left, top, left + mask.shape[1], top + mask.shape[0]), size)
    box = place["bounding_box"]
    return fo.Detection(label=LABEL, bounding_box=box, mask=mask, **attributes)
