"""Everything that a GPU can do, in one run of some minutes.

It needs torch, timm, numba, scipy, pillow and scikit-image, and neither FiftyOne nor a network nor
the package installed. Where time runs out, the last of it, compiled encoders, is left out.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.pipeline import count, crf, encoder, end_to_end, prompts, segmentation, table2
from benchmarks.settings import Settings, UsageError

SECONDS = 8 * 60

SECTIONS: dict[str, Callable[[Settings], dict[str, Any]]] = {
    "segmentation": segmentation.run,
    "crf": lambda settings: {"batches": crf.batches(settings)},
    "encoder": encoder.run,
    "prompts": prompts.run,
    "table2": table2.run,
    "count": count.run,
    "end_to_end": end_to_end.run,
    "encoder_compiled": lambda settings: {"encoders": encoder.run_compiled(settings)},
}


def run(settings: Settings) -> dict[str, Any]:
    if not settings.on_gpu and not settings.quick:
        raise UsageError("on a CPU only with --quick, to see it run")
    settings = replace(settings, deadline=time.monotonic() + SECONDS)
    sections: dict[str, Any] = {}
    for name, section in SECTIONS.items():
        started = time.perf_counter()
        try:
            sections[name] = section(settings)
        except Exception as error:  # the others' figures are not to be lost
            traceback.print_exc()
            sections[name] = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
        sections[name]["took_s"] = round(time.perf_counter() - started, 1)
        print(f"{name}: {sections[name]['took_s']} s", flush=True)
    return sections
