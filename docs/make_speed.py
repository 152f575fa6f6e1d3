"""Fill the figures of docs/speed.md and docs/planning.md in: python docs/make_speed.py.

They come from benchmarks/results.

Between ``<!-- made by docs/make_speed.py: NAME -->`` and ``<!-- end -->`` stands a table, between
``<!--=NAME-->`` and ``<!--/-->`` a figure of a sentence; the text around them is written by hand.
(No line may start with a figure: what follows would be no Markdown any more.)
The pictures are drawn too. With --check nothing is written, and the exit status is 1 if the page
or a picture is not what the results give.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import speed_gpu
import speed_plots
import speed_results
import speed_scale
import speed_tables

PAGES = [Path(__file__).parent / name for name in ("speed.md", "planning.md")]
TABLES = {**speed_tables.TABLES, **speed_gpu.TABLES, **speed_scale.TABLES}
BLOCK = re.compile(r"(<!-- made by docs/make_speed\.py: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
FIGURE = re.compile(r"(<!--=(\w+)-->).*?(<!--/-->)")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    pages = {path: path.read_text() for path in PAGES}
    filled = {path: fill(page) for path, page in pages.items()}
    if not check:
        for path, page in filled.items():
            path.write_text(page)
        speed_plots.draw()
        return 0
    wrong = [path.name for path in PAGES if filled[path] != pages[path]]
    wrong += [f"images/{name}" for name in speed_plots.stale()]
    for name in wrong:
        print(f"{name} is not what the results give: python docs/make_speed.py", file=sys.stderr)
    return 1 if wrong else 0


def fill(page: str) -> str:
    """The page with all tables and figures as the results give them."""
    page = BLOCK.sub(lambda m: f"{m[1]}\n{_table(m[2])}\n\n{m[3]}", page)
    return FIGURE.sub(lambda m: f"{m[1]}{_figure(m[2])}{m[3]}", page)


def _table(name: str) -> str:
    try:
        return TABLES[name]()
    except FileNotFoundError as missing:
        return f"Not measured yet: `python -m benchmarks {missing}`."


def _figure(name: str) -> str:
    try:
        return speed_results.show({**speed_results.values(), **speed_scale.VALUES}[name]())
    except FileNotFoundError:
        return "(not measured yet)"


if __name__ == "__main__":
    sys.exit(main())
