"""The whole way on two cores, up to 100,000 images: files, masks, database, COCO JSON.

Images of 160 pixels, an encoder that hands on stored features at once, no CRF: what is measured is
all that is not the encoder and not the CRF, which have benchmarks of their own. Ray's workers write
shards, which are merged into FiftyOne's database as they come; then the field is exported.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.database import start
from benchmarks.memory import apart, now_mb, peak_mb
from benchmarks.settings import Settings
from benchmarks.timing import rates, timed

COUNTS = (1000, 10_000, 100_000)
SIDE = 160
CHANNELS = 64
DIFFERENT = 200  #: files; the others are hard links to them
FIELD = "promerge"
SAMPLES = 40  #: looks at memory and database in a run


def run(settings: Settings) -> dict[str, Any]:
    counts = settings.pick(COUNTS, (300,))
    return {"side": SIDE, "counts": [apart(f"{__name__}:of_count", count=n) for n in counts]}


@dataclass(frozen=True)
class StubRecipe:
    """A pipeline with an encoder that takes no time."""

    embed: bool = False

    @property
    def identity(self) -> dict[str, Any]:
        return dict(self("cpu", 1).identity())

    def __call__(self, device: str, threads: int) -> Any:
        from benchmarks.subjects import StandIn
        from promerge_fo.config import ProMergeConfig, Refine
        from promerge_fo.pipeline import Pipeline

        encoder = StandIn(lambda pixels: None, device, channels=CHANNELS, image_size=SIDE)
        config = ProMergeConfig(image_size=SIDE, refine=Refine.NONE, min_refined_iou=0)
        return Pipeline(encoder, config, threads=threads)


def of_count(count: int) -> dict[str, Any]:
    """The whole way, in a process and with a server of its own."""
    fo = start()
    from promerge_fo.cluster import segment_on_ray
    from promerge_fo.dataset.exchange.export import export_pseudo_labels
    from promerge_fo.dataset.samples import open_source

    with tempfile.TemporaryDirectory() as name:
        folder, json = Path(name), Path(name, "masks.json")
        _write_images(folder / "images", count)
        dataset, opened = timed(lambda: open_source(str(folder / "images"), "scale"))
        server = fo.core.odm.get_db_conn()
        empty = server.command("dbStats")
        watch = _Watch(server, count)

        def segment(progress: Any = None) -> Any:
            return segment_on_ray(
                dataset, StubRecipe(), FIELD, shards=folder / "shards", workers=2, shard_size=250,
                progress=progress,
            )  # fmt: skip

        report = segment(watch.bar)
        again, nothing = timed(segment)
        assert again.skipped == count
        summary, exported = timed(lambda: export_pseudo_labels(dataset, FIELD, json, min_area=0))
        server.client.admin.command("fsync")  # so that its files have all
        stats = server.command("dbStats")
        shards = sum(path.stat().st_size for path in (folder / "shards").rglob("*.parquet"))
        json_bytes = json.stat().st_size
    return {
        "images": count,
        "masks": summary["annotations"],
        "failed": report.counts.get("failed", 0),
        **rates(count, opened + report.seconds + exported),
        "seconds_by_step": {
            "files_to_dataset": round(opened, 3),
            "masks_to_database": round(report.seconds, 3),
            "database_to_json": round(exported, 3),
            "second_run_does_nothing": round(nothing, 3),
        },
        "shards_mb": round(shards / 2**20, 3),
        "json_mb": round(json_bytes / 2**20, 1),
        "database_mb": round((stats["dataSize"] - empty["dataSize"]) / 2**20, 1),
        "database_disk_mb": round(stats["storageSize"] / 2**20, 1),
        "peak_memory_mb": peak_mb(),
        "samples": watch.samples,
    }


def _write_images(folder: Path, count: int) -> None:
    from PIL import Image

    from benchmarks.subjects import photographs

    images = [Image.fromarray(pixels) for pixels in photographs((SIDE, SIDE)).values()]
    # a folder holds a thousand, as file systems like it
    paths = [folder / f"{number // 1000:03}" / f"{number:06}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True, parents=True)
        if number < DIFFERENT:
            image = images[number % len(images)].rotate(number * 360 / DIFFERENT)
            image.save(path, quality=90)
        else:
            os.link(paths[number % DIFFERENT], path)


class _Watch:
    """Notes memory, speed and the database's size while a run goes on; a progress bar."""

    def __init__(self, server: Any, count: int) -> None:
        self._server = server
        self._every = max(1, count // SAMPLES)
        self._next, self._done = self._every, 0
        self._started = time.perf_counter()
        self.samples: list[dict[str, Any]] = []

    def bar(self, total: int) -> _Watch:
        self._started = time.perf_counter()
        return self

    def update(self, n: int) -> None:
        self._done += n
        if self._done < self._next:
            return
        self._next = self._done + self._every
        stats, status = self._server.command("dbStats"), self._server.command("serverStatus")
        self.samples.append(
            {
                "images": self._done,
                "seconds": round(time.perf_counter() - self._started, 3),
                "driver_mb": now_mb(),
                "workers_mb": _workers_mb(),
                "server_mb": status["mem"]["resident"],
                "database_mb": round(stats["dataSize"] / 2**20, 1),
            }
        )

    def close(self) -> None:
        pass


def _workers_mb() -> float | None:
    """What Ray's actors that this process started hold together."""
    from benchmarks.crew import actors_of

    held = [actor.memory_info().rss for actor in actors_of(os.getpid())]
    return round(sum(held) / 2**20, 1) if held else None
