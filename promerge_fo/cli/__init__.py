"""The ``promerge`` command: thin, one function for each command, in modules of related ones."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from promerge_fo.cli import detecting, exchange, machine, measuring, segmenting
from promerge_fo.machine import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (130 after Ctrl-C)."""
    given = sys.argv[1:] if argv is None else list(argv)
    try:
        if given[:1] == ["bench"]:
            return machine.bench(given[1:])
        options = vars(_parser().parse_args(given))
        return int(options.pop("command")(**options))
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except (ValueError, TypeError, RuntimeError, OSError, ImportError) as error:
        print(f"promerge: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="promerge",
        description="Instance masks for unlabelled images, by ProMerge, in FiftyOne.",
        epilog="promerge COMMAND --help explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"promerge-fo {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (segmenting, exchange, measuring, detecting, machine):
        module.add_commands(commands)
    return parser
