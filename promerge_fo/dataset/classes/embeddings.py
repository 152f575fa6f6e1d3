"""Embeddings of masks: one vector a mask, of what the encoder saw inside it.

A vector is the mean of the patch features of one facet and block, by the mask's share of each
patch; that is what :mod:`~promerge_fo.dataset.classes.stored_vectors` keeps. Reading subtracts the
mean of all masks of the field and gives what is left unit length, so that the scalar product of two
vectors tells how much two masks are alike.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fiftyone.core.utils as fou
import numpy as np
import torch
from bson import ObjectId
from numpy.typing import NDArray

from promerge_fo.config import run_hash
from promerge_fo.dataset.classes.means import Masked, embed_masks
from promerge_fo.dataset.classes.stored_vectors import (
    Embedded,
    current_vectors,
    differences,
    forget_lost_samples,
    label_parts,
    sources_of,
    write_embeddings,
)
from promerge_fo.dataset.database import (
    aggregate,
    documents,
    drop_lost_companions,
    is_generated,
    retry_while_unreachable,
    root_dataset,
)
from promerge_fo.dataset.labels import pixel_crop
from promerge_fo.dataset.provenance import find_records
from promerge_fo.dataset.samples import all_images, require_detections, whole_images_of
from promerge_fo.dataset.stored_labels import StoredLabel, stored_labels
from promerge_fo.encoder import load_encoder
from promerge_fo.encoder.base import Encoder, Facet
from promerge_fo.instances import Crop
from promerge_fo.pipeline import Pipeline, encoder_settings
from promerge_fo.progress import ShowProgress, progress_bar

__all__ = [
    "EmbedReport",
    "Embeddings",
    "complete_embeddings",
    "embed_instances",
    "read_embeddings",
    "require_comparable",
]

logger = logging.getLogger("fiftyone.promerge")

_ROWS = 8192  # vectors that are centred and scaled together
_NONE = 1e-6  # of the centre's length: a shorter vector is rounding, and has no direction
_TOGETHER = 100  # images whose labels are read, and whose vectors are written, together
_WHOLE = fou.serialize_numpy_array(np.ones((1, 1), dtype=np.bool_))  # the mask of a mere box
_UNREADABLE = (ValueError, TypeError, OSError, zlib.error)  # what a broken label raises


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of a field's masks, in the order of the samples and then of their labels.

    Attributes:
        label_ids: (n,) text.
        sample_ids: (n,) text.
        vectors: (n, d) float32 of unit length, centred over all masks of the dataset's field. A
            mask that equals their mean has no direction, and zeros. A single mask is not centred.
        source: what made them: the encoder's ``name``, ``weights_sha256``, ``facet``, ``block``
            (where it is not the last) and its other settings.
    """

    label_ids: NDArray[np.str_]
    sample_ids: NDArray[np.str_]
    vectors: NDArray[np.float32]
    source: dict[str, Any]

    def __len__(self) -> int:
        return len(self.label_ids)


@dataclass(frozen=True)
class EmbedReport:
    """Summary of :func:`embed_instances`.

    Attributes:
        masks: how many masks got an embedding.
        images: how many images they lie in.
        skipped: the number of images whose masks all had one.
        unusable: how many masks have none because they have no pixel in their image, or because
            the encoder gave NaN or infinity.
        failed: images that could not be read, or have masks that could not, with the reasons.
        seconds: the duration.
        source: what made the embeddings, see :class:`Embeddings`.
    """

    masks: int = 0
    images: int = 0
    skipped: int = 0
    unusable: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    source: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        text = f"{self.masks} masks of {self.images} images embedded in {self.seconds:.1f} s"
        if self.skipped:
            text += f"; {self.skipped} images had theirs"
        if self.unusable:
            text += (
                f"; {self.unusable} masks have none, as they have no pixel in their image or the "
                "encoder gave NaN or infinity for them"
            )
        if self.failed:
            text += f"; {len(self.failed)} images failed"
        return text


def read_embeddings(samples: Any, label_field: str) -> Embeddings:
    """The embeddings of the masks that samples have now, centred over those of their dataset.

    Masks without one are left out, and the log says how many.

    Args:
        samples: a dataset or a view of images; a view may have some of the labels.
        label_field: a field of detections.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: the samples are patches; the field holds no detections, or no label here; none
            of them has an embedding, or none of finite numbers; or the embeddings are of several
            encoders, facets or blocks, which do not compare: the message says of which.
    """
    samples = whole_images_of(samples)
    require_detections(samples, label_field)
    dataset = root_dataset(samples)
    rows = aggregate(samples, [{"$project": {f"{label_field}.detections._id": True}}])
    found = [(row["_id"], label.id) for row in rows for label in stored_labels(row, label_field)]
    if not found:
        raise ValueError(
            f"the field {label_field!r} has no masks here; segment the images, or give another "
            "field or view"
        )
    sample_ids, label_ids = (np.array([str(i) for i in ids]) for ids in zip(*found, strict=True))
    places = {label: place for place, label in enumerate(label_ids.tolist())}
    is_there = np.zeros(len(places), dtype=np.bool_)
    vectors = np.zeros((0, 0), dtype=np.float32)
    made_by, total, unusable = Counter[str](), np.zeros(1), 0
    for image in current_vectors(all_images(dataset), label_field):
        finite = np.isfinite(image.vectors).all(axis=1)
        unusable += int(np.count_nonzero(~finite))
        if image.made_by is None or not finite.any():
            continue
        made_by[image.made_by] += int(np.count_nonzero(finite))
        if len(made_by) > 1:
            continue
        total = total + image.vectors[finite].sum(axis=0, dtype=np.float64)
        if not vectors.size:
            vectors = np.zeros((len(places), image.vectors.shape[1]), dtype=np.float32)
        at = np.array([places.get(str(label), -1) for label in image.labels])
        chosen = finite & (at >= 0)
        vectors[at[chosen]], is_there[at[chosen]] = image.vectors[chosen], True
    sources = sources_of(dataset, label_field)
    if len(made_by) > 1:
        raise ValueError(
            f"the masks of {label_field!r} have embeddings that do not compare; they differ in "
            f"{differences(*(sources[key] for key in list(made_by)[:2]))}. Give all of them those "
            f"of one encoder: promerge embed {dataset.name} --label-field {label_field} --overwrite"
        )
    if not is_there.any():
        raise ValueError(_why_none(dataset.name, label_field, len(places), unusable))
    if not is_there.all():
        logger.warning(
            "promerge: %d of %d masks of %r are left out: they have no embedding as they are now; "
            "promerge embed %s --label-field %s",
            np.count_nonzero(~is_there), len(places), label_field, dataset.name, label_field,
        )  # fmt: skip
        sample_ids, label_ids, vectors = (
            sample_ids[is_there],
            label_ids[is_there],
            vectors[is_there],
        )
    (key,), (count,) = made_by.keys(), made_by.values()
    _centre(vectors, total / count if count > 1 else 0 * total)
    return Embeddings(label_ids, sample_ids, vectors, sources[key])


def embed_instances(
    samples: Any,
    label_field: str = "promerge",
    *,
    encoder: str | Encoder | None = None,
    checkpoint: str | Path | None = None,
    facet: Facet | None = None,
    block: int | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 8,
    overwrite: bool = False,
    progress: ShowProgress = None,
) -> EmbedReport:
    """Give the masks of a dataset or view embeddings, also those that no run of ours has made.

    Images all of whose masks have one are skipped, so a call that was stopped goes on where it was,
    and masks that were painted get new ones. A label without a mask is described by its box.

    Args:
        samples: a dataset or a view of images; all labels of each image get embeddings.
        label_field: a field of detections.
        encoder: the name of an encoder, or one that is loaded already, for which the four arguments
            below cannot be given. None takes that of the embeddings that are there, else that of
            the run that made the masks, else that of :func:`promerge_fo.load_encoder`.
        checkpoint: a file with the encoder's weights.
        facet: which features; None takes those of the run, or keys for a named encoder.
        block: the block of the encoder, from 1; None takes that of the run, or the last one.
        device: a torch device; None takes CUDA or Apple's GPU if there is one, else the CPU.
        batch_size: images that a GPU encodes together.
        overwrite: make all embeddings anew, also in place of another encoder's.
        progress: see :data:`promerge_fo.progress.ShowProgress`.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: the samples are patches, or frames of videos; the field holds no detections, or
            no label here; or masks have embeddings of another encoder, facet or block, with which
            new ones do not compare, and ``overwrite`` is not given.
        promerge_fo.encoder.WeightsError: the weights cannot be had.
    """
    samples = whole_images_of(samples)
    if is_generated(samples):
        raise ValueError(
            "these samples are frames of videos, whose embeddings would be lost with the view; "
            "make a dataset of them: samples.clone()"
        )
    require_detections(samples, label_field)
    if samples.count(f"{label_field}.detections") == 0:
        raise ValueError(
            f"the field {label_field!r} has no masks here; segment the images, or give another "
            "field or view"
        )
    dataset = root_dataset(samples)
    if not overwrite and all(given is None for given in (encoder, checkpoint, facet, block)):
        done = _complete(samples, label_field)
        if done is not None:  # without the encoder, whose weights may lie elsewhere
            return done
    if not isinstance(encoder, Encoder):
        settings = _settings(dataset, label_field, encoder, facet, block)
        encoder = load_encoder(checkpoint=checkpoint, device=device, **settings)
    elif any(given is not None for given in (checkpoint, facet, block, device)):
        raise ValueError(
            "the encoder is loaded already; give checkpoint, facet, block and device to "
            "load_encoder instead"
        )
    if not overwrite:
        require_comparable(all_images(dataset), label_field, encoder.embedding_identity())
    return complete_embeddings(
        samples,
        label_field,
        Pipeline(encoder, embed=True),
        batch_size,
        overwrite=overwrite,
        progress=progress,
    )


def complete_embeddings(
    samples: Any,
    label_field: str,
    pipeline: Pipeline,
    batch_size: int = 8,
    *,
    overwrite: bool = False,
    progress: ShowProgress = None,
) -> EmbedReport:
    """Give the masks embeddings that have none of a pipeline's encoder.

    Args:
        samples: a dataset or a view of whole images.
        label_field: a field of detections.
        pipeline: embeds, and has the encoder.
        batch_size: images that a GPU encodes together.
        overwrite: make all embeddings anew.
        progress: see :data:`promerge_fo.progress.ShowProgress`.
    """
    started = time.perf_counter()
    dataset, source = root_dataset(samples), pipeline.encoder.embedding_identity()
    todo, skipped = _left(samples, label_field, None if overwrite else run_hash(source))
    counts, failed = Counter[str](), {}
    with progress_bar(progress, len(todo)) as bar:
        images = _embed(dataset, label_field, pipeline, todo, batch_size) if todo else ()
        for chunk in fou.iter_batches(images, _TOGETHER):
            done = []
            for each, vectors in chunk:
                if each.error is not None:
                    failed[each.path] = each.error
                if vectors is not None:
                    done.append(Embedded(each.sample_id, each.labels, vectors))
                    good = int(np.isfinite(vectors).all(axis=1).sum())
                    counts.update(masks=good, unusable=len(vectors) - good, images=1)
                bar.update(1)
            write_embeddings(dataset, label_field, source, done)
    seconds = time.perf_counter() - started
    return EmbedReport(**counts, skipped=skipped, failed=failed, seconds=seconds, source=source)


def _left(samples: Any, label_field: str, made_by: str | None) -> tuple[list[ObjectId], int]:
    """The images with masks that lack a vector of a source, and how many lack none.

    Without a source, all of them lack one. Vectors of samples that are gone go, too.
    """
    drop_lost_companions()
    forget_lost_samples(samples, label_field)
    left, done = [], 0
    for image in current_vectors(samples, label_field):
        if image.total and image.made_by == made_by and len(image.labels) == image.total:
            done += 1
        elif image.total:
            left.append(image.sample_id)
    return left, done


def _complete(samples: Any, label_field: str) -> EmbedReport | None:
    """The report on a field whose masks all have vectors, of one source; else None."""
    started, sources = time.perf_counter(), sources_of(root_dataset(samples), label_field)
    if len(sources) != 1:
        return None
    ((made_by, source),) = sources.items()
    left, skipped = _left(samples, label_field, made_by)
    if left:
        return None
    return EmbedReport(skipped=skipped, seconds=time.perf_counter() - started, source=source)


class _Image:
    """An image with the labels whose vectors are wanted.

    Attributes:
        sample_id: of its sample.
        path: of its file.
        labels: as the database stores them; once :meth:`crops` was called, those with a mask that
            can be read.
        error: what was wrong with the image or with one of the others.
    """

    def __init__(self, document: dict[str, Any], label_field: str) -> None:
        self.sample_id: ObjectId = document["_id"]
        self.path = str(document["filepath"])
        self.labels = list((document.get(label_field) or {}).get("detections") or [])
        self.error: str | None = None

    def crops(self, size: tuple[int, int]) -> list[Crop]:
        """The masks of the labels, for the size of the image in pixels."""
        crops, readable = [], []
        for label in self.labels:
            stored = StoredLabel(label)
            if not stored.has_mask:
                stored = StoredLabel({**label, "mask": _WHOLE})
            try:
                crops.append(Crop(*pixel_crop(stored, size)))
            except _UNREADABLE as error:
                self.error = str(error)
            else:
                readable.append(label)
        self.labels = readable
        return crops


def _embed(
    dataset: Any, label_field: str, pipeline: Pipeline, ids: Sequence[ObjectId], batch_size: int
) -> Iterator[tuple[_Image, NDArray[np.float32] | None]]:
    """The images with these ids and the vectors of their labels; None where an image failed."""
    under_way: list[_Image] = []

    def images() -> Iterator[Masked]:
        for chunk in fou.iter_batches(ids, _TOGETHER):
            query = {"_id": {"$in": list(chunk)}}
            found = retry_while_unreachable(
                lambda: list(documents(dataset, query, "filepath", *label_parts(label_field)))  # noqa: B023
            )
            for document in found:
                under_way.append(_Image(document, label_field))
                yield Masked(under_way[-1].path, under_way[-1].crops)

    for result in embed_masks(pipeline, images(), batch_size):
        image = under_way.pop(0)
        if isinstance(result, Exception):
            image.error = str(result)
            yield image, None
        else:
            yield image, result


def _settings(
    dataset: Any, label_field: str, encoder: str | None, facet: Facet | None, block: int | None
) -> dict[str, Any]:
    """The arguments of ``load_encoder`` for the embeddings of a field: see embed_instances."""
    if encoder is not None:
        return {"name": encoder, "facet": facet, "block": block}
    sources = list(sources_of(dataset, label_field).values())
    if not sources and dataset.has_field(f"{label_field}.run"):
        records = find_records(dataset, label_field, dataset.distinct(f"{label_field}.run"))
        made = [record.identity for record in records.values() if "encoder" in record.identity]
        sources = [identity["encoder"] for identity in made]
    if not sources:
        return {"facet": facet, "block": block}
    settings = encoder_settings(sources[0])
    given = {"facet": facet, "block": block}
    return {**settings, **{name: value for name, value in given.items() if value is not None}}


def require_comparable(samples: Any, label_field: str, source: Mapping[str, Any]) -> None:
    """Refuse to mix embeddings of a source with those of others.

    Args:
        samples: images whose masks stay.
        label_field: a field of detections.
        source: what will make embeddings, see :meth:`Encoder.embedding_identity`.

    Raises:
        ValueError: these masks have embeddings of another source.
    """
    sources = sources_of(samples, label_field)
    own = run_hash(dict(source))
    if not sources.keys() - {own}:
        return
    others = Counter[str]()
    for image in current_vectors(samples, label_field):
        if image.made_by not in (None, own):
            others[str(image.made_by)] += len(image.labels)
    for other, count in (+others).items():
        raise ValueError(
            f"{count:,} masks of {label_field!r} have embeddings with which these do not compare; "
            f"there and here differ in {differences(sources[other], source)}. Give the same "
            "encoder, weights, facet and block, or overwrite (--overwrite) to replace them"
        )


def _why_none(dataset: str, label_field: str, total: int, unusable: int) -> str:
    if unusable:
        return (
            f"none of the {total:,} masks of {label_field!r} has an embedding of finite numbers: "
            "the encoder gave NaN or infinity, or the masks have no pixel in their images; with "
            "other weights, or precision='fp32', embed them again (overwrite)"
        )
    return (
        f"none of the {total:,} masks of {label_field!r} has an embedding of its mask as it is "
        f"now; promerge embed {dataset} --label-field {label_field} makes them"
    )


def _centre(vectors: NDArray[np.float32], centre: NDArray[np.float64]) -> None:
    """Subtract the centre (d,) from vectors (n, d), and give them unit length, in place."""
    least = _NONE * float(np.linalg.norm(centre))
    for start in range(0, len(vectors), _ROWS):
        rows = vectors[start : start + _ROWS] - centre
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        rows /= np.where(lengths > least, lengths, np.inf)
        vectors[start : start + _ROWS] = rows
