"""How commands and their options are declared, and the options that several commands have."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeAlias

__all__ = [
    "FACETS",
    "Commands",
    "Options",
    "add",
    "add_command",
    "add_parameters",
    "flag_of",
    "positive",
]

Kind: TypeAlias = "str | type[argparse.Action] | Callable[[str], Any] | Collection[str]"
# argparse names these types, but keeps the names to itself.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Options: TypeAlias = "argparse._ActionsContainer"  #: a parser, or a group of its options


FACETS = ("key", "query", "value", "token", "normed_token")  #: of a vision transformer


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


_SHARED: Mapping[str, tuple[Kind, str]] = {
    "dataset": ("DATASET|DIR", "a dataset's name, or the folder of its images"),
    "--label-field": ("NAME", "field with the masks"),
    "--gt-field": ("NAME", "field with the ground truth"),
    "--view": ("NAME", "one of the dataset's saved views"),
    "--limit": (positive, "only the first N images"),
    "--image-root": ("DIR", "folder that the names of images start from (an export knows its own)"),
    "--num-workers": (int, "processes that read images (one for each CPU core, 8 at most)"),
    "--encoder": ("NAME", "a timm ViT (vit_base_patch8_224.dino), or texture"),
    "--checkpoint": ("FILE", "the encoder's weights in DINO's or timm's layout, not the hub's"),
    "--device": ("NAME", "cuda, cuda:1, mps, cpu (a GPU if there is one)"),
}


def add_command(
    commands: Commands,
    function: Callable[..., int],
    usage: str | None = None,
    name: str | None = None,
) -> argparse.ArgumentParser:
    """Declare a command.

    Args:
        commands: what ``add_subparsers`` gives.
        function: what the command does, given its options by name; returns the exit status. Its
            docstring is the command's help, and the docstring's first line is the command's line
            in the list of commands.
        usage: what follows the command's name, in place of argparse's list of all options.
        name: what the user types; the function's name by default.

    Returns:
        The parser, for the command's options.
    """
    name = name or function.__name__
    text = inspect.getdoc(function) or ""
    summary = text.partition("\n")[0].rstrip(".")
    parser = commands.add_parser(
        name,
        help=summary[:1].lower() + summary[1:],
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=usage and f"promerge {name} {usage}",
    )
    parser.set_defaults(command=function)
    return parser


def add(
    parser: Options,
    name: str,
    kind: Kind | None = None,
    text: str = "",
    **more: Any,
) -> None:
    """Add an option or a positional argument to a parser or a group.

    Args:
        parser: of the command, or a group of its options.
        name: with the dashes that the user types.
        kind: a placeholder such as "FILE" for text; ``positive``, ``int`` or ``float`` for a
            number; ``bool`` for an option without a value; ``argparse.BooleanOptionalAction`` for
            --x and --no-x; else the values to choose from. None takes kind and text from those
            that several commands share.
        text: the help; the default follows by itself.
        more: what ``add_argument`` takes besides.
    """
    if kind is None:
        kind, text = _SHARED[name]
    if isinstance(kind, str):
        more["metavar"] = kind
    elif kind is bool:
        more["action"] = "store_true"
    elif kind is argparse.BooleanOptionalAction:
        more["action"] = kind
    elif callable(kind):
        more.update(type=kind, metavar="X" if kind is float else "N")
    else:
        more["choices"] = kind
    if more.get("default") is not None:
        text += f" ({more['default']})"
    parser.add_argument(name, help=text.replace("%", "%%"), **more)


def add_parameters(parser: Options, records: Iterable[Mapping[str, Any]]) -> None:
    """Add an option for each parameter of a configuration; None is what is not given.

    Args:
        parser: of the command, or a group of its options.
        records: what :meth:`~promerge_fo.parameters.Parameters.describe` gives.
    """
    kinds = {"int": int, "float": float, "bool": argparse.BooleanOptionalAction}
    for record in records:
        default = record["default"]
        shown = f"{default:g}" if record["type"] == "float" else default
        text = f"{record['meaning']}; {record['source']} ({shown})"
        add(parser, flag_of(record["name"]), record["choices"] or kinds[record["type"]], text)


def flag_of(name: str) -> str:
    """The option that sets a parameter."""
    return "--" + name.replace("_", "-")
