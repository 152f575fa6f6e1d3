"""What several commands share: how they are declared, and kinds of arguments."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any


def add_command(
    group: Any, name: str, function: Any, help: str, text: str, usage: str | None = None
) -> Any:
    """Declare a command.

    Args:
        group: what ``add_subparsers`` gives.
        name: as it is typed.
        function: takes the parsed arguments and returns the exit status.
        help: one line, for the list of commands.
        text: for its own help.
        usage: in place of argparse's.

    Returns:
        The parser, for the command's arguments.
    """
    made = group.add_parser(
        name,
        help=help,
        description=textwrap.dedent(text).strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=usage,
    )
    made.set_defaults(command=function)
    return made


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value
