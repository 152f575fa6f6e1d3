"""Options that choose a method, its parameters and an encoder."""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promerge_fo.cli.arguments import FACETS, add, add_parameters, flag_of, positive
from promerge_fo.config import METHODS, Config, preset_encoder

if TYPE_CHECKING:
    from promerge_fo.dataset.runs.model import ProMergeModel

__all__ = [
    "add_model_options",
    "config_of",
    "is_tuned",
    "model_of",
    "read_settings",
    "setting_of",
]

_OF_ENCODER = ("facet", "block", "precision", "resize")
_OF_EMBEDDINGS = ("embed", "embed_facet", "embed_block")
_PASSED_ON = ("checkpoint", "device", "compile", *_OF_ENCODER)


def add_model_options(parser: argparse.ArgumentParser, *, takes_tuned: bool = False) -> None:
    """Add the options to a command.

    Args:
        parser: of the command.
        takes_tuned: whether a file of ``promerge tune`` may stand in their place.
    """
    if takes_tuned:
        text = "all settings and the encoder, as promerge tune --output wrote them"
        add(parser, "--settings", "JSON", text)
    add(parser, "--method", METHODS, "what makes the masks (promerge)")
    presets = dict.fromkeys(name for method in METHODS.values() for name in method.presets)
    group = parser.add_argument_group("encoder")
    add(group, "--preset", presets, "settings to start from (default)")
    add(group, "--encoder")
    add(group, "--checkpoint")
    text = "which features of the block are taken (key, or what the calibration chooses)"
    add(group, "--facet", FACETS, text)
    add(group, "--block", positive, "block whose features are taken, from 1 (the last)")
    text = "keep the paper's thresholds; else, they are chosen where they do not suit the encoder"
    add(group, "--no-calibrate", bool, text)
    add(group, "--device")
    precisions = ("fp32", "bf16", "auto")
    add(group, "--precision", precisions, "numbers that the encoder calculates in (fp32)")
    add(group, "--compile", bool, "compile the encoder for a GPU: starts slowly")
    text = "make images square, or keep their proportions (square)"
    add(group, "--resize", ("square", "aspect"), text)
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


def config_of(method: str | None, preset: str | None, **options: Any) -> Config:
    """The configuration that the options ask for.

    Args:
        method: a name in ``METHODS``; None is ProMerge.
        preset: to start from; None is the default.
        options: all options of the command; those that are not None change parameters.

    Raises:
        ValueError: a value out of its range, a parameter or preset of another method.
    """
    kind = METHODS[method or "promerge"]
    own = [record["name"] for record in kind.describe()]
    changes = {name: value for name in _parameters() if (value := options[name]) is not None}
    for name in changes:
        if name not in own:
            raise ValueError(
                f"{flag_of(name)} is no parameter of {kind.method}; its parameters are: "
                + ", ".join(map(flag_of, own))
            )
    return kind.preset(preset or "default").replace(**changes)


def read_settings(path: str) -> dict[str, dict[str, Any]]:
    """Settings by name, from a file that was written by hand or by ``promerge tune --output``.

    Raises:
        ValueError: the file does not hold settings.
    """
    try:
        settings = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from None
    if not isinstance(settings, dict) or not all(isinstance(s, dict) for s in settings.values()):
        raise ValueError(f"{path} must hold a JSON object with settings, each an object, by name")
    return settings


def is_tuned(setting: dict[str, Any]) -> bool:
    """Whether ``promerge tune`` wrote a setting: all of :meth:`promerge_fo.Pipeline.identity`."""
    config, encoder = setting.get("config"), setting.get("encoder")
    return (
        setting.get("method") in METHODS
        and isinstance(config, dict)
        and isinstance(encoder, dict)
        and {"name", "facet", "precision", "image_size", "resize"} <= encoder.keys()
    )


def setting_of(settings: str | None, **options: Any) -> Config | dict[str, Any]:
    """What the options ask for: a configuration, or all that a file of ``promerge tune`` says.

    Args:
        settings: the file, or None.
        options: all other options of the command.

    Raises:
        ValueError: as by :func:`config_of`; the file holds something else; or an option contradicts
            it.
    """
    if settings is None:
        return config_of(**options)
    tuned = list(read_settings(settings).values())
    if len(tuned) != 1 or not is_tuned(tuned[0]):
        raise ValueError(f"{settings} is no file that promerge tune --output wrote; make one by it")
    identity = tuned[0]
    encoder = identity["encoder"]
    has = {
        "method": identity["method"],
        "encoder": encoder["name"],
        **{name: encoder.get(name) for name in _OF_ENCODER},
        **identity["config"],
    }
    for name in ("method", "encoder", *_OF_ENCODER, *_parameters()):
        if options[name] not in (None, has.get(name)):
            raise ValueError(
                f"{flag_of(name)} {options[name]} contradicts {settings}, which has "
                f"{has.get(name, 'no such parameter')}; leave one of them out"
            )
    for name in ("preset", "no_calibrate"):
        if options[name]:
            raise ValueError(f"{settings} has all settings; leave {flag_of(name)} out, or the file")
    return identity


def model_of(
    setting: Config | dict[str, Any], preset: str | None, encoder: str | None, **options: Any
) -> ProMergeModel:
    """The model of a setting, with the encoder that it has, or else that the options ask for.

    Raises:
        ValueError: among others, the weights are not those with which the setting was tuned.
    """
    from promerge_fo.dataset.runs.model import ProMergeModel, load_model
    from promerge_fo.pipeline import pipeline_of

    embedding = {name: options[name] for name in _OF_EMBEDDINGS if options.get(name)}
    if embedding and "embed" not in embedding:
        raise ValueError("--embed-facet and --embed-block are for embeddings; give --embed, too")
    if isinstance(setting, dict):
        chosen = {name: options[name] for name in ("checkpoint", "device", "compile")}
        chosen |= embedding
        try:
            model = ProMergeModel(pipeline_of(setting, **chosen))
        except ValueError as error:
            raise ValueError(f"{options['settings']}: {error}") from error
        model.is_left_uncalibrated = True
        return model
    chosen = {name: value for name in _PASSED_ON if (value := options[name]) is not None}
    encoder = encoder or preset_encoder(preset or "default")
    model = load_model(config=setting, encoder=encoder, **chosen, **embedding)
    model.is_left_uncalibrated = options["no_calibrate"]
    return model


def _parameters() -> list[str]:
    """The names of all parameters of all methods."""
    records = (record for method in METHODS.values() for record in method.describe())
    return sorted({record["name"] for record in records})
