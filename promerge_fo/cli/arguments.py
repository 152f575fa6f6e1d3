"""What several commands share: how they are declared, and the arguments of models."""

from __future__ import annotations

import argparse
import textwrap
from typing import TYPE_CHECKING, Any

from promerge_fo.config import PRESETS, ProMergeConfig

if TYPE_CHECKING:
    from promerge_fo.dataset.model import ProMergeModel


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


def make_config(arguments: argparse.Namespace) -> ProMergeConfig:
    """The settings that were given, on those of the preset."""
    given = {r["name"]: getattr(arguments, r["name"]) for r in ProMergeConfig.describe()}
    changes = {name: value for name, value in given.items() if value is not None}
    return ProMergeConfig.preset(arguments.preset).replace(**changes)


def make_model(arguments: argparse.Namespace, config: ProMergeConfig) -> ProMergeModel:
    """The model that was asked for."""
    from promerge_fo.dataset.model import load_model, preset_encoder

    return load_model(
        config=config,
        encoder=arguments.encoder or preset_encoder(arguments.preset),
        checkpoint=arguments.checkpoint,
        facet=arguments.facet,
        device=arguments.device,
        precision=arguments.precision,
        resize=arguments.resize,
        compile=arguments.compile,
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what :func:`make_config` and :func:`make_model` read."""
    group = parser.add_argument_group("encoder")
    group.add_argument(
        "--preset", choices=PRESETS, default="default", help="settings to start from (default)"
    )
    group.add_argument(
        "--encoder", metavar="NAME", help="a timm ViT (vit_base_patch8_224.dino), or texture"
    )
    group.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="weights in DINO's or timm's layout, instead of the hub's",
    )
    group.add_argument(
        "--facet", choices=("key", "query", "value", "token"), default="key", help="(key)"
    )
    group.add_argument("--device", help="cuda, cuda:1, cpu (a GPU if there is one)")
    group.add_argument(
        "--precision", choices=("fp32", "bf16", "auto"), default="fp32", help="(fp32)"
    )
    group.add_argument(
        "--compile", action="store_true", help="compile the encoder for a GPU: starts slowly"
    )
    group.add_argument("--resize", choices=("square", "aspect"), default="square", help="(square)")
    group = parser.add_argument_group(
        "parameters of the method",
        "defaults come from the preset; those shown are ProMergeConfig's",
    )
    for record in ProMergeConfig.describe():
        flag = "--" + record["name"].replace("_", "-")
        text = f"{record['meaning']}; {record['source']} ({record['default']})".replace("%", "%%")
        if record["type"] == "choice":
            group.add_argument(flag, choices=record["choices"], help=text)
        elif record["type"] == "bool":
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            kind = {"int": int, "float": float}[record["type"]]
            group.add_argument(flag, type=kind, metavar="X" if kind is float else "N", help=text)


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value
