"""A progress bar on the terminal."""

from __future__ import annotations

import time

from promerge_fo.words import duration


class TerminalBar:
    """A bar with the rate, and after the first images a line with the time that all will take.

    Args:
        total: images, or frames.
        unit: what is counted.
    """

    ESTIMATE_AFTER = 5.0  #: seconds

    def __init__(self, total: int, unit: str = "images") -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total, unit=f" {unit}", dynamic_ncols=True)
        self._unit = unit
        self._started = time.perf_counter()
        self._estimated = False

    def update(self, n: int) -> None:
        """Move on by ``n`` images."""
        self._bar.update(n)
        done, total = self._bar.n, self._bar.total
        seconds = time.perf_counter() - self._started
        if not self._estimated and 0 < done < total and seconds > self.ESTIMATE_AFTER:
            self._estimated = True
            self._bar.write(
                f"about {duration(seconds / done * total)} for {total} {self._unit} "
                f"at {done / seconds:.2f} {self._unit}/s"
            )
        if done >= total:
            self._bar.close()  # ends its line, before others are written

    def close(self) -> None:
        """End the bar's line."""
        self._bar.close()
