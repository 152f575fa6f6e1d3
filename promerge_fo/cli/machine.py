"""``promerge doctor``, ``bench``, ``plugin``: this machine."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from promerge_fo.cli.arguments import Commands, add, add_command

_REMEDY = textwrap.TextWrapper(
    96, initial_indent=" " * 10 + "-> ", subsequent_indent=" " * 13, break_on_hyphens=False
)


def add_commands(commands: Commands) -> None:
    """Declare the commands."""
    made = add_command(commands, doctor)
    text = "provide the database server that FiftyOne starts, if it has none"
    add(made, "--install-mongod", bool, text)

    # Only listed here: main hands its arguments on to the benchmarks, which know them.
    commands.add_parser("bench", help="measure the speed on this machine", add_help=False)

    plugin = commands.add_parser("plugin", help="the FiftyOne App's plugin")
    plugin_commands = plugin.add_subparsers(required=True, metavar="COMMAND")
    made = add_command(plugin_commands, install, name="install")
    add(made, "--folder", "DIR", "a checkout or copy of the plugin (the library's own)")


def doctor(install_mongod: bool) -> int:
    """What works on this machine, and what to do about the rest.

    Everything that the package uses is looked at, and each line comes as soon as it is known. The
    exit status is 1 where something will not work.
    """
    from promerge_fo.install import mongod
    from promerge_fo.install.doctor import examine

    if install_mongod:
        print(f"mongod: {mongod.install_mongod()}")
        return 0
    problems = 0
    for finding in examine():
        problems += finding.state == "problem"
        lines = [f"{finding.state:>8}  {finding.subject}: {finding.detail}"]
        print("\n".join(lines + _REMEDY.wrap(finding.remedy)), flush=True)
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


def install(folder: str | None) -> int:
    """Put the App's plugin where FiftyOne looks for plugins."""
    from promerge_fo.install.plugin import install_plugin

    print(f"installed {install_plugin(folder)}; reload the App to see its operators")
    return 0
