"""The ``promerge`` command: thin, one function for each command, in modules of related ones."""

from __future__ import annotations

import _thread
import argparse
import atexit
import io
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

STOPPED = 130  #: the exit status after Ctrl-C, as shells have it
#: What is told in a line. Other errors are faults of this package, whose place is worth knowing.
_TOLD = (ValueError, TypeError, RuntimeError, OSError, ImportError, MemoryError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the command and its options; None takes those of this process, which is then seen as
            the command's own: a second Ctrl-C ends it at once.

    Returns:
        The exit status: 0; 1 if images failed or were left out, or a check failed; 2 for what
        cannot be done as it was asked; 130 after Ctrl-C.
    """
    given = sys.argv[1:] if argv is None else list(argv)
    if argv is None:
        _own_process()
    try:
        if given[:1] == ["bench"]:
            from promerge_fo.cli.machine import bench

            return bench(given[1:])
        options = vars(_parser().parse_args(given))
        return int(options.pop("command")(**options))
    except KeyboardInterrupt:
        return _stopped()
    except Exception as error:
        if (
            signal.getsignal(signal.SIGINT) is _stop_at_once
        ):  # such as an import that was broken off
            return _stopped()
        if not isinstance(error, _TOLD) and not type(error).__module__.startswith("pymongo"):
            raise
        print(f"promerge: {_words_of(error)}", file=sys.stderr)
        return 2


def _stopped() -> int:
    print("\nstopped", file=sys.stderr)
    return STOPPED


def _own_process() -> None:
    """Have Ctrl-C end the process without tracebacks, and print any name of a file."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
        sys.unraisablehook = _stop_all_the_same
        # The first that is registered is the last that is done: Python is about to end by itself.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def _stop(*_: object) -> None:
    """What is under way ends in order, and is stored; a second Ctrl-C does not wait for that."""
    signal.signal(signal.SIGINT, _stop_at_once)
    raise KeyboardInterrupt


def _stop_at_once(*_: object) -> None:
    os.write(2, b"\nstopped at once; what was stored is kept\n")
    os._exit(STOPPED)


def _stop_all_the_same(lost: Any) -> None:
    """Ask again for the end that a destructor or a callback of Python's took for its own error."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        signal.signal(signal.SIGINT, _stop)
        threading.Timer(0.01, _thread.interrupt_main).start()  # after this one has returned
    else:
        sys.__unraisablehook__(lost)


def _words_of(error: Exception) -> str:
    """The error's message, without Python's numbers of system errors."""
    if not isinstance(error, OSError) or error.filename is None or error.errno is None:
        from promerge_fo.words import reason_of

        return str(error) or reason_of(error)
    if isinstance(error, FileNotFoundError):
        return f"{error.filename} does not exist; check the path"
    if isinstance(error, PermissionError):
        return f"{error.filename} may not be read or written by this user"
    return f"{error.filename}: {error.strerror}"


def _parser() -> argparse.ArgumentParser:
    # Here, where Ctrl-C is heard: NumPy and others take a moment.
    from promerge_fo.cli import (
        classes,
        detecting,
        embedding,
        exchange,
        fields,
        machine,
        measuring,
        runs,
        segmenting,
    )
    from promerge_fo.machine import __version__

    parser = argparse.ArgumentParser(
        prog="promerge",
        description="Instance masks for unlabelled images, by ProMerge, in FiftyOne.",
        epilog="promerge COMMAND --help explains a command. The exit status is 0; 1 if images "
        "failed or were left out, or a check failed; 2 for what cannot be done as it was asked; "
        "130 after Ctrl-C. Ctrl-C once more does not wait for what is under way.",
    )
    parser.add_argument("--version", action="version", version=f"promerge-fo {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (
        segmenting, runs, embedding, fields, classes, exchange, measuring, detecting, machine,
    ):  # fmt: skip
        module.add_commands(commands)
    return parser
