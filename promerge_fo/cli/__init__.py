"""The ``promerge`` command: thin, one function a command, in modules of what goes together."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from promerge_fo.cli import detecting, exchange, machine, measuring, segmenting


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (130 after Ctrl-C)."""
    given = sys.argv[1:] if argv is None else list(argv)
    try:
        if given[:1] == ["bench"]:
            return machine.bench(given[1:])
        arguments = _parser().parse_args(given)
        return int(arguments.command(arguments) or 0)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except (ValueError, TypeError, RuntimeError, OSError, ImportError) as error:
        print(f"promerge: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    from promerge_fo.versions import __version__

    parser = argparse.ArgumentParser(
        prog="promerge",
        description="Instance masks for unlabelled images, by ProMerge, in FiftyOne.",
        epilog="promerge COMMAND --help explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"promerge-fo {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    segmenting.add_commands(commands)
    exchange.add_commands(commands)
    measuring.add_commands(commands)
    detecting.add_commands(commands)
    machine.add_commands(commands)
    return parser
