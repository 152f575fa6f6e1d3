"""Options that choose a method, its parameters and an encoder."""

from __future__ import annotations

import argparse
import textwrap
from typing import TYPE_CHECKING, Any

from promerge_fo.cli.arguments import add, add_parameters, flag_of, positive
from promerge_fo.config import METHODS, Config

if TYPE_CHECKING:
    from promerge_fo.dataset.runs.model import ProMergeModel

__all__ = ["add_model_options", "config_of", "model_of"]

_PASSED_ON = ("checkpoint", "facet", "block", "device", "precision", "resize", "compile")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to a command."""
    add(parser, "--method", METHODS, "what makes the masks", default="promerge")
    presets = dict.fromkeys(name for method in METHODS.values() for name in method.presets)
    group = parser.add_argument_group("encoder")
    add(group, "--preset", presets, "settings to start from", default="default")
    add(group, "--encoder")
    add(group, "--checkpoint")
    facets = ("key", "query", "value", "token", "normed_token")
    text = "which features of the block are taken (key, or what the calibration chooses)"
    add(group, "--facet", facets, text)
    add(group, "--block", positive, "block whose features are taken, from 1 (the last)")
    text = "keep the paper's thresholds; else, they are chosen where they do not suit the encoder"
    add(group, "--no-calibrate", bool, text)
    add(group, "--device")
    precisions = ("fp32", "bf16", "auto")
    add(group, "--precision", precisions, "numbers that the encoder calculates in", default="fp32")
    add(group, "--compile", bool, "compile the encoder for a GPU: starts slowly")
    text = "make images square, or keep their proportions"
    add(group, "--resize", ("square", "aspect"), text, default="square")
    made: set[str] = set()
    for name, method in METHODS.items():
        records = method.describe()
        shared = [f"{flag_of(r['name'])} ({r['default']})" for r in records if r["name"] in made]
        text = "defaults come from the preset; shown are those of the preset default"
        text += f"; besides, as above: {', '.join(shared)}" if shared else ""
        text = textwrap.fill(text, 76, break_on_hyphens=False)
        group = parser.add_argument_group(f"parameters of {name}", text)
        add_parameters(group, [record for record in records if record["name"] not in made])
        made.update(record["name"] for record in records)


def config_of(method: str, preset: str, **options: Any) -> Config:
    """The configuration that the options ask for.

    Args:
        method: a name in ``METHODS``.
        preset: to start from.
        options: all options of the command; those that are not None change parameters.

    Raises:
        ValueError: a value out of its range, a parameter or preset of another method.
    """
    kind = METHODS[method]
    own = [record["name"] for record in kind.describe()]
    names = {record["name"] for method in METHODS.values() for record in method.describe()}
    changes = {name: value for name in sorted(names) if (value := options[name]) is not None}
    for name in changes:
        if name not in own:
            raise ValueError(
                f"{flag_of(name)} is no parameter of {method}; its parameters are: "
                + ", ".join(map(flag_of, own))
            )
    return kind.preset(preset).replace(**changes)


def model_of(config: Config, preset: str, encoder: str | None, **options: Any) -> ProMergeModel:
    """The model of a configuration, with the encoder that the options ask for."""
    from promerge_fo.dataset.runs.model import load_model, preset_encoder

    chosen = {name: options[name] for name in _PASSED_ON}
    return load_model(config=config, encoder=encoder or preset_encoder(preset), **chosen)
