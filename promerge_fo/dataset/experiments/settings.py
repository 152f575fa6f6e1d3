"""Settings to compare: named configurations, as grids, sweeps and stored definitions make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from promerge_fo.config import METHODS, Config

__all__ = ["changes_between", "grid", "settings_of", "sweep", "values_of"]


def grid(config: Config, **values: Sequence[Any]) -> dict[str, Config]:
    """Every combination of some values of some parameters.

    Args:
        config: has the other parameters.
        values: of each parameter, those to try.

    Returns:
        Configurations by names such as ``"stride=4, tau_b=0.2"``; ``{"as given": config}`` without
        any values.

    Raises:
        TypeError, ValueError: no parameter of the method, or no value of it; no values.

    Examples:
        >>> from promerge_fo import ProMergeConfig
        >>> list(grid(ProMergeConfig(), stride=[4, 6], tau_b=[0.1, 0.2]))[1:3]
        ['stride=4, tau_b=0.2', 'stride=6, tau_b=0.1']
    """
    for name, some in values.items():
        if not some:
            raise ValueError(f"{name} has no values to try; give some, or leave it out")
    combinations = [dict(zip(values, each, strict=True)) for each in product(*values.values())]
    made = [config.replace(**changes) for changes in combinations]
    return {_name(each, list(values)): each for each in made}


def sweep(config: Config, **values: Sequence[Any]) -> dict[str, Config]:
    """One parameter after the other takes some values, while all others stay as they are.

    Args:
        config: has the other parameters.
        values: of each parameter, those to try.

    Returns:
        Configurations by names such as ``"stride=4"``.

    Raises:
        TypeError, ValueError: as :func:`grid`.
    """
    settings: dict[str, Config] = {}
    for name, some in values.items():
        settings.update(grid(config, **{name: some}))
    return settings


def settings_of(definition: Mapping[str, Mapping[str, Any]]) -> dict[str, Config]:
    """Configurations as JSON defines them.

    Args:
        definition: of each name the ``method`` ("promerge" by default), the ``preset``
            ("default") and the parameters that differ from it; and ``sweep``, where there is one:
            of each parameter the values that it takes in turn, which name the settings then.

    Raises:
        TypeError, ValueError: an unknown method, preset or parameter, or a value out of its range.

    Examples:
        >>> definition = {"MaskCut": {"method": "maskcut", "sweep": {"cuts": [1, 3]}}}
        >>> list(settings_of(definition))
        ['MaskCut, cuts=1', 'MaskCut, cuts=3']
    """
    settings: dict[str, Config] = {}
    for name, parts in definition.items():
        changes = dict(parts)
        method, preset = changes.pop("method", "promerge"), changes.pop("preset", "default")
        values = changes.pop("sweep", None)
        if method not in METHODS:
            raise ValueError(
                f"{name}: there is no method {method!r}; the methods are: {', '.join(METHODS)}"
            )
        config = METHODS[method].preset(preset).replace(**changes)
        if values is None:
            settings[name] = config
        else:
            swept = sweep(config, **values)
            settings.update({f"{name}, {each}": made for each, made in swept.items()})
    return settings


def values_of(kind: type[Config], texts: Mapping[str, str]) -> dict[str, list[Any]]:
    """Values of parameters that a person has put down, such as ``"2, 4, 6"``.

    Args:
        kind: what configures the method.
        texts: of each parameter its values, with commas between them.

    Raises:
        ValueError: no parameter of the method, or a text that cannot be a value of it.

    Examples:
        >>> from promerge_fo import ProMergeConfig
        >>> values_of(ProMergeConfig, {"stride": "2, 4", "filtering": "ioa,nms"})
        {'stride': [2.0, 4.0], 'filtering': ['ioa', 'nms']}
    """
    kinds = {record["name"]: record["type"] for record in kind.describe()}
    for name in texts:
        if name not in kinds:
            raise ValueError(
                f"{name} is no parameter of {kind.method}; its parameters are: " + ", ".join(kinds)
            )
    return {
        name: [_value(name, part.strip(), kinds[name]) for part in text.split(",")]
        for name, text in texts.items()
    }


def changes_between(settings: Mapping[str, Config]) -> dict[str, list[Any]]:
    """The parameters in which settings differ, the method among them.

    Returns:
        Of each such parameter the value that each setting has, None where its method has none.
    """
    records = [{"method": c.method, **c.to_dict()} for c in settings.values()]
    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: [record.get(name) for record in records] for name in names}
    return {name: values for name, values in columns.items() if len(set(values)) > 1}


def _name(config: Config, varied: Sequence[str]) -> str:
    values = config.to_dict()
    return ", ".join(f"{name}={values[name]}" for name in varied) or "as given"


def _value(name: str, text: str, kind: str) -> Any:
    if kind == "choice":
        return text
    try:
        return {"true": True, "false": False}[text.lower()] if kind == "bool" else float(text)
    except (KeyError, ValueError):
        wanted = "true or false" if kind == "bool" else "a number"
        raise ValueError(f"{name}: {text!r} is not {wanted}") from None
