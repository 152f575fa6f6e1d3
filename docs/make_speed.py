"""Fill in what the pages of PAGES show of benchmarks/results.

    python docs/make_speed.py            # write the pages and draw their pictures
    python docs/make_speed.py --check    # write nothing; the exit status is 1 if something is old

The pages say themselves where a figure comes from, in marks that readers do not see; the text
around them is written by hand. docs/speed_figures.py explains the places:

- ``<!--=PLACE-->2.3<!--/-->`` is a figure in a sentence or in a table's head. No line may start
  with one: what follows would be no Markdown any more.
- ``<!-- made by docs/make_speed.py: PLACE: {a} | {b:share} -->`` stands above a table that ends
  with ``<!-- end -->``. Its head is written by hand; it has a row for each record of the list at
  that place, with what the record has at ``a`` and at ``b``.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

import speed_figures
import speed_plots

NAMES = ("speed.md", "planning.md", "encoders.md", "classes.md")
PAGES = [Path(__file__).parent / name for name in NAMES]
BLOCK = re.compile(
    r"(<!-- made by docs/make_\w+\.py: (\w[\w.-]*)(?::\s(.*?))? -->\n)(.*?)(<!-- end -->)",
    re.DOTALL,
)
FIGURE = re.compile(r"(<!--=(\S+?)-->).*?(<!--/-->)")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="say what is old, and change nothing")
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
    page = FIGURE.sub(lambda m: f"{m[1]}{speed_figures.figure(m[2])}{m[3]}", page)
    return replace_blocks(page, _block)


def replace_blocks(page: str, make: Callable[[str, str, str], str]) -> str:
    """The page with other text between the marks.

    Args:
        page: its text.
        make: gives that text, from the name in the mark, what else stands there, and the old text.
    """
    return BLOCK.sub(lambda m: f"{m[1]}\n{make(m[2], m[3] or '', m[4].strip())}\n\n{m[5]}", page)


def _block(place: str, cells: str, old: str) -> str:
    if place == "gpu":
        return speed_figures.gpu()
    head = old.splitlines()[:2]  # written by hand
    return "\n".join([*head, *speed_figures.rows(place, " ".join(cells.split()))])


if __name__ == "__main__":
    sys.exit(main())
