"""Options of the command line that choose a method, its parameters and an encoder."""

from __future__ import annotations

import argparse
import textwrap
from typing import TYPE_CHECKING, Any

from promerge_fo.config import METHODS, Config

if TYPE_CHECKING:
    from promerge_fo.dataset.runs.model import ProMergeModel

__all__ = ["add_model_arguments", "config_of", "model_of"]


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options to a command."""
    parser.add_argument(
        "--method", choices=METHODS, default="promerge", help="what makes the masks (promerge)"
    )
    presets = dict.fromkeys(name for method in METHODS.values() for name in method.presets)
    group = parser.add_argument_group("encoder")
    group.add_argument(
        "--preset", choices=presets, default="default", help="settings to start from (default)"
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
    made: set[str] = set()
    for name, method in METHODS.items():
        records = method.describe()
        shared = [f"{_flag(r['name'])} ({r['default']})" for r in records if r["name"] in made]
        text = "defaults come from the preset; shown are those of the preset default"
        text += f"; besides, as above: {', '.join(shared)}" if shared else ""
        text = textwrap.fill(text, 76, break_on_hyphens=False)
        group = parser.add_argument_group(f"parameters of {name}", text)
        for record in records:
            if record["name"] not in made:
                _add_parameter(group, record)
                made.add(record["name"])


def _add_parameter(group: Any, record: dict[str, Any]) -> None:
    flag = _flag(record["name"])
    text = f"{record['meaning']}; {record['source']} ({record['default']})".replace("%", "%%")
    if record["type"] == "choice":
        group.add_argument(flag, choices=record["choices"], help=text)
    elif record["type"] == "bool":
        group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
    else:
        kind = {"int": int, "float": float}[record["type"]]
        group.add_argument(flag, type=kind, metavar="X" if kind is float else "N", help=text)


def config_of(arguments: argparse.Namespace) -> Config:
    """The configuration that the options ask for.

    Raises:
        ValueError: a value out of its range, a parameter or preset of another method.
    """
    kind = METHODS[arguments.method]
    own = [record["name"] for record in kind.describe()]
    names = {record["name"] for method in METHODS.values() for record in method.describe()}
    changes = {name: v for name in sorted(names) if (v := getattr(arguments, name)) is not None}
    for name in changes:
        if name not in own:
            raise ValueError(
                f"{_flag(name)} is no parameter of {arguments.method}; its parameters are: "
                + ", ".join(map(_flag, own))
            )
    return kind.preset(arguments.preset).replace(**changes)


def model_of(arguments: argparse.Namespace, config: Config) -> ProMergeModel:
    """The model that the options ask for."""
    from promerge_fo.dataset.runs.model import load_model, preset_encoder

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


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
