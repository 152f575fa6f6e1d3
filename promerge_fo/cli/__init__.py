"""The ``promerge`` command: thin, one function for each command, in modules of related ones."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from promerge_fo.cli import detecting, exchange, fields, machine, measuring, runs, segmenting
from promerge_fo.machine import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0; 1 if images failed, or a check did; 2 for what cannot be done as it was
        asked; 130 after Ctrl-C.
    """
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
        print(f"promerge: {_words_of(error)}", file=sys.stderr)
        return 2


def _words_of(error: Exception) -> str:
    """The error's message, without Python's numbers of system errors."""
    if not isinstance(error, OSError) or error.filename is None or error.errno is None:
        return str(error)
    if isinstance(error, FileNotFoundError):
        return f"{error.filename} does not exist; check the path"
    if isinstance(error, PermissionError):
        return f"{error.filename} may not be read or written by this user"
    return f"{error.filename}: {error.strerror}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="promerge",
        description="Instance masks for unlabelled images, by ProMerge, in FiftyOne.",
        epilog="promerge COMMAND --help explains a command. The exit status is 0; 1 if images "
        "failed; 2 for what cannot be done as it was asked; 130 after Ctrl-C.",
    )
    parser.add_argument("--version", action="version", version=f"promerge-fo {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (segmenting, runs, fields, exchange, measuring, detecting, machine):
        module.add_commands(commands)
    return parser
