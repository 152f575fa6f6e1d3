"""The frames of videos: how many there are, which a run has finished, and their pixels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import eta.core.video as etav
import fiftyone as fo
import numpy as np
from numpy.typing import NDArray

from promerge_fo.dataset.database import collection_of, dataset_of, forget_loaded, frames_of
from promerge_fo.dataset.runs.unstored import failed
from promerge_fo.words import reason_of

__all__ = [
    "evenly_spaced_frames",
    "frame_counts",
    "frame_failures",
    "frame_totals",
    "labels_before",
    "record_frame_failures",
]


def frame_totals(videos: Any) -> dict[str, int]:
    """The number of frames of each video, by its id, as its file says; 1 where it does not say.

    Metadata that are missing are added to the samples.
    """
    videos.compute_metadata(num_workers=1, progress=False)
    ids, totals = videos.values(["id", "metadata.total_frame_count"])
    return {each: total or 1 for each, total in zip(ids, totals, strict=True)}


def evenly_spaced_frames(videos: Any, count: int) -> list[NDArray[np.uint8]]:
    """Frames of some videos, evenly spaced in all of them together.

    Args:
        videos: a dataset or a view of videos.
        count: the number of frames; there may be fewer, as a video that cannot be read has none.

    Returns:
        Arrays (H, W, 3) uint8, RGB.
    """
    totals = list(frame_totals(videos).values())
    ends = np.cumsum(totals)
    places = np.unique(np.linspace(0, ends[-1] - 1, min(count, ends[-1])).astype(int))
    which = np.searchsorted(ends, places, side="right")
    found: list[NDArray[np.uint8]] = []
    for index, path in enumerate(videos.values("filepath")):
        first = ends[index] - totals[index]
        numbers = (places[which == index] - first + 1).tolist()
        if numbers:
            try:
                with etav.FFmpegVideoReader(path, frames=numbers) as frames:
                    found += frames
            except Exception:  # FiftyOne raises whatever ffprobe's output led to
                continue
    return found


def frame_counts(videos: Any, label_field: str, run: str) -> dict[str, Counter[str]]:
    """The number of frames that a run has finished of each video, by status.

    Args:
        videos: a dataset or a view of videos.
        label_field: the field with the masks, without "frames.".
        run: the run hash.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    status = f"{label_field}.status"
    for frame in frames_of(videos, videos.values("id"), {f"{label_field}.run": run}, status):
        counts[str(frame["_sample_id"])][frame[label_field]["status"]] += 1
    return counts


def frame_failures(videos: Any, label_field: str, run: str) -> Iterator[tuple[str, str]]:
    """The frames that a run could not segment, and why, in the order of the videos."""
    paths = dict(zip(*videos.values(["id", "filepath"]), strict=True))
    query = {f"{label_field}.run": run, f"{label_field}.status": "failed"}
    found = frames_of(videos, paths, query, "frame_number", f"{label_field}.error")
    places = {each: place for place, each in enumerate(paths)}
    order = sorted(found, key=lambda f: (places[str(f["_sample_id"])], f["frame_number"]))
    for frame in order:
        path = f"{paths[str(frame['_sample_id'])]}, frame {frame['frame_number']}"
        yield path, frame[label_field].get("error") or "unknown"


def labels_before(frames: Sequence[Any], run: str, field: str | None) -> list[fo.Detections | None]:
    """The labels that a run gave to frames of a video before; None where it gave none.

    FiftyOne adds new labels to those that it has read with a frame, so these are forgotten here.

    Args:
        frames: of one video, as FiftyOne hands them to a model.
        run: the run hash.
        field: the field with the labels; None looks in all fields of detections, as the same run
            makes the same of a frame in every field.
    """
    videos, video = collection_of(frames[0]), frames[0].sample_id
    if video is None:
        return [None] * len(frames)
    schema = dataset_of(videos).get_frame_field_schema(embedded_doc_type=fo.Detections)
    fields: list[str] = list(schema or ()) if field is None else [field]
    numbers = [frame.frame_number for frame in frames]
    known: dict[int, fo.Detections] = {}
    for each in fields:
        query = {"frame_number": {"$in": numbers}, f"{each}.run": run}
        for stored in frames_of(videos, [video], query, "frame_number", each):
            known.setdefault(stored["frame_number"], fo.Detections.from_dict(stored[each]))
        for frame in frames:
            forget_loaded(frame, each)
    return [known.get(number) for number in numbers]


def record_frame_failures(
    videos: Any,
    label_field: str,
    run: str,
    totals: Mapping[str, int],
    reasons: Mapping[str, Exception],
) -> None:
    """Store that frames failed which have no labels of a run.

    Args:
        videos: a dataset or a view of videos.
        label_field: the field for the labels.
        run: the run hash.
        totals: the number of frames of each video, by its id.
        reasons: why, by the ids of videos; of others, that fewer frames can be read.
    """
    for each, total in totals.items():
        query = {f"{label_field}.run": run}
        done = {f["frame_number"] for f in frames_of(videos, [each], query, "frame_number")}
        missing = [number for number in range(1, total + 1) if number not in done]
        if not missing:
            continue
        why = reasons.get(each)
        reason = (
            f"the video has {total} frames by its metadata, but this one cannot be read"
            if why is None
            else reason_of(why)
        )
        sample = videos[each]
        for number in missing:
            sample.frames[number][label_field] = failed(reason, run)
        sample.save()
