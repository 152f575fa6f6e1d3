"""``promerge doctor``, ``bench``, ``plugin``: this machine."""

from __future__ import annotations

import argparse
import importlib
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from promerge_fo.cli.arguments import add_command


def add_commands(commands: Any) -> None:
    """Declare the commands."""
    made = add_command(
        commands,
        "doctor",
        doctor,
        "what works on this machine, and what to do about the rest",
        "Look at everything that the package uses, and say what to do about what does not work.",
    )
    made.add_argument(
        "--install-mongod",
        action="store_true",
        help="provide the database server that FiftyOne starts, if it has none",
    )

    # Only listed here: main hands its arguments on to the benchmarks, which know them.
    commands.add_parser("bench", help="measure the speed on this machine", add_help=False)

    plugin = commands.add_parser("plugin", help="the FiftyOne App's plugin")
    plugin_commands = plugin.add_subparsers(required=True, metavar="COMMAND")
    made = add_command(
        plugin_commands,
        "install",
        plugin_install,
        "put the plugin where FiftyOne looks",
        "Put the App's plugin where FiftyOne looks for plugins.",
    )
    made.add_argument(
        "--folder", help="a checkout or copy of the plugin (found by itself in a checkout)"
    )


def doctor(arguments: argparse.Namespace) -> int:
    """``promerge doctor``."""
    from promerge_fo.install.doctor import examine

    if arguments.install_mongod:
        from promerge_fo.install.mongod import install_mongod

        print(f"mongod: {install_mongod()}")
        return 0
    problems = 0
    for finding in examine():
        problems += finding.state == "problem"
        print(f"{finding.state:>8}  {finding.subject}: {finding.detail}")
        if finding.remedy:
            print(
                textwrap.fill(
                    finding.remedy,
                    96,
                    initial_indent=" " * 10 + "-> ",
                    subsequent_indent=" " * 13,
                    break_on_hyphens=False,
                )
            )
    return 1 if problems else 0


def bench(arguments: Sequence[str]) -> int:
    """``promerge bench``, which ``python -m benchmarks`` is in a checkout without installation."""
    checkout = Path(__file__).parents[2]
    if not (checkout / "benchmarks" / "__main__.py").is_file():
        raise RuntimeError(
            "the benchmarks are not part of the installed package; clone the project, and run "
            "python -m benchmarks there"
        )
    sys.path.insert(0, str(checkout))
    return int(importlib.import_module("benchmarks.__main__").main(arguments))


def plugin_install(arguments: argparse.Namespace) -> int:
    """``promerge plugin install``."""
    from promerge_fo.install.plugin import install_plugin

    print(f"installed {install_plugin(arguments.folder)}; reload the App to see its operators")
    return 0
