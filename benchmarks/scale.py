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

from benchmarks.database import start, why_not
from benchmarks.memory import apart, now_mb, peak_mb
from benchmarks.settings import Settings

COUNTS = (1000, 10_000, 100_000)
SIDE = 160
PATCH = 8
CHANNELS = 64
DIFFERENT = 200  #: files; the others are hard links to them
FIELD = "promerge"
SAMPLES = 40  #: looks at memory and database in a run


def run(settings: Settings) -> dict[str, Any]:
    missing = why_not()
    if missing is not None:
        return {"fiftyone_missing": missing, "counts": None}
    return {
        "fiftyone_missing": None,
        "side": SIDE,
        "counts": [
            apart("benchmarks.scale:of_count", count=count)
            for count in settings.pick(COUNTS, (300,))
        ],
    }


@dataclass(frozen=True)
class StubRecipe:
    """A pipeline with the encoder that takes no time."""

    @property
    def identity(self) -> dict[str, Any]:
        return dict(self("cpu", 1).identity())

    def __call__(self, device: str, threads: int) -> Any:
        import torch

        from benchmarks.subjects import golden_features
        from promerge_fo.config import ProMergeConfig
        from promerge_fo.encoder import Encoder, Resize
        from promerge_fo.pipeline import Pipeline

        class Stub(Encoder):
            def __init__(self) -> None:
                super().__init__(
                    name="stub", facet="key", precision="fp32", transform=Resize(SIDE, PATCH),
                    device=torch.device(device), weights_sha256=None, weights_source="none",
                )  # fmt: skip
                self._stored = list(golden_features(CHANNELS, SIDE // PATCH).values())

            def _encode(self, pixels: torch.Tensor, with_prompt_scores: bool) -> Any:
                sums = pixels.sum(dim=(1, 2, 3)).tolist()
                return torch.stack([self._stored[s % len(self._stored)] for s in sums]), None

        config = ProMergeConfig(image_size=SIDE, refine="none", min_refined_iou=0)
        return Pipeline(Stub(), config, threads=threads)


def of_count(count: int) -> dict[str, Any]:
    """The whole way, in a process and with a server of its own."""
    start()
    import fiftyone as fo

    from promerge_fo.cluster import segment_on_ray
    from promerge_fo.dataset.exchange.export import export_pseudo_labels
    from promerge_fo.dataset.samples import open_source

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_images(folder / "images", count)
        started = time.perf_counter()
        dataset = open_source(str(folder / "images"), "scale")
        opened = time.perf_counter() - started
        server = fo.core.odm.get_db_conn()
        empty = server.command("dbStats")
        watch = _Watch(server, count)
        options = {"shards": folder / "shards", "workers": 2, "shard_size": 250}
        report = segment_on_ray(dataset, StubRecipe(), FIELD, progress=watch.bar, **options)
        again = time.perf_counter()
        skipped = segment_on_ray(dataset, StubRecipe(), FIELD, **options).skipped
        nothing = time.perf_counter() - again
        assert skipped == count
        exporting = time.perf_counter()
        summary = export_pseudo_labels(dataset, FIELD, folder / "masks.json", min_area=0)
        exported = time.perf_counter() - exporting
        server.client.admin.command("fsync")  # so that its files have all
        stats = server.command("dbStats")
        shards = sum(path.stat().st_size for path in (folder / "shards").rglob("*.parquet"))
        json_bytes = (folder / "masks.json").stat().st_size
    fo.core.odm.drop_database()
    seconds = opened + report.seconds + exported
    return {
        "images": count,
        "masks": summary["annotations"],
        "failed": report.counts.get("failed", 0),
        "seconds": round(seconds, 3),
        "images_per_s": round(count / seconds, 3),
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

    folder.mkdir()
    images = [Image.fromarray(pixels) for pixels in photographs((SIDE, SIDE)).values()]
    for number in range(count):
        # a folder holds a thousand, as file systems like it
        path = folder / f"{number // 1000:03}" / f"{number:06}.jpg"
        path.parent.mkdir(exist_ok=True)
        if number < DIFFERENT:
            image = images[number % len(images)].rotate(number * 360 / DIFFERENT)
            image.save(path, quality=90)
        else:
            original = number % DIFFERENT
            os.link(folder / f"{original // 1000:03}" / f"{original:06}.jpg", path)


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
    """What Ray's actors that this process started hold together (Linux)."""
    from benchmarks.crew import actors_of

    pages = [
        int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in actors_of(os.getpid())
    ]
    return round(sum(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20, 1) if pages else None
