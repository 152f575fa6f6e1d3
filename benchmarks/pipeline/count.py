"""Images a second and memory against the number of images: neither may depend on it.

The encoder gives stored features at once, so that the rest of the pipeline is what is measured:
reading JPEG files, segmenting, refining. Each run has a process of its own. 10,000 images take
minutes: in a full run only.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.memory import apart, now_mb, peak_mb
from benchmarks.settings import Settings
from benchmarks.subjects import instant, photograph_files
from benchmarks.timing import rates
from promerge_fo.pipeline import Pipeline

COUNTS = (10, 100, 1000)
FULL_COUNTS = (*COUNTS, 10_000)
WARM_UP = 16
SAMPLES = 20  #: looks at the memory in a run


def run(settings: Settings) -> dict[str, Any]:
    counts = settings.pick(FULL_COUNTS if settings.full else COUNTS, (4,))
    device = settings.device
    return {"counts": [apart(f"{__name__}:of_count", count=n, device=device) for n in counts]}


def of_count(count: int, device: str) -> dict[str, Any]:
    pipeline = Pipeline(instant(Settings(device)))
    with tempfile.TemporaryDirectory() as folder:
        paths = photograph_files(Path(folder), count)
        list(pipeline.run((paths * WARM_UP)[:WARM_UP]))
        every, memory, failed, masks = max(1, count // SAMPLES), [], 0, 0
        before, started = now_mb(), time.perf_counter()
        for done, instances in enumerate(pipeline.run(paths), start=1):
            failed += instances.status == "failed"
            masks += len(instances)
            if done % every == 0:
                memory.append({"images": done, "memory_mb": now_mb()})
        seconds = time.perf_counter() - started
    return {
        "images": count,
        "failed": failed,
        "masks": masks,
        **rates(count, seconds),
        "memory_before_mb": before,
        "peak_memory_mb": peak_mb(),
        "memory": memory,
    }
