"""Settings to compare: named configurations, made by grids, sweeps and stored definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from promerge_fo.config import METHODS, Config, MaskCutConfig, ProMergeConfig, TokenCutConfig

__all__ = [
    "SEARCH", "changes_between", "grid", "search_space", "settings_of", "sweep", "values_of",
]  # fmt: skip

SEARCH: dict[type[Config], dict[str, list[float]]] = {
    ProMergeConfig: {"stride": [2, 4], "tau_b": [0.1, 0.2, 0.3, 0.4], "tau_f_merge": [0, 0.1, 0.3]},
    MaskCutConfig: {"cuts": [1, 2, 3, 5], "tau": [0.1, 0.15, 0.2, 0.3]},
    TokenCutConfig: {"tau": [0.05, 0.1, 0.2, 0.3, 0.4]},
}
"""The values that are tried by default. For ProMerge, those that matter in the paper's Fig. 6."""


def grid(config: Config, **values: Sequence[Any]) -> dict[str, Config]:
    """All combinations of some values of some parameters.

    Args:
        config: the values of all other parameters.
        values: the values to try, by parameter.

    Returns:
        Configurations by names such as ``"stride=4, tau_b=0.2"``; ``{"as given": config}`` if no
        parameters are given.

    Raises:
        TypeError: the method has no such parameter.
        ValueError: a value is out of the parameter's range, or there are no values for it.

    Examples:
        >>> from promerge_fo import ProMergeConfig
        >>> list(grid(ProMergeConfig(), stride=[4, 6], tau_b=[0.1, 0.2]))[1:3]
        ['stride=4, tau_b=0.2', 'stride=6, tau_b=0.1']
    """
    for name, to_try in values.items():
        if not to_try:
            raise ValueError(f"{name} has no values to try; give some, or leave it out")
    combinations = [dict(zip(values, each, strict=True)) for each in product(*values.values())]
    configs = [config.replace(**changes) for changes in combinations]
    return {_name_of(each, list(values)): each for each in configs}


def search_space(config: Config, **values: Any) -> dict[str, Config]:
    """Settings to choose from: a configuration as it is, and a grid around it.

    Args:
        config: the first setting, named ``"as given"``.
        values: the values to try, by parameter; by default those of :data:`SEARCH`.

    Raises:
        TypeError: the method has no such parameter.
        ValueError: a value is out of the parameter's range, or there are no values for it.

    Examples:
        >>> list(search_space(TokenCutConfig(), tau=[0.1, 0.2, 0.3]))
        ['as given', 'tau=0.1', 'tau=0.3']
    """
    around = grid(config, **(values or SEARCH[type(config)]))
    return {"as given": config, **{name: c for name, c in around.items() if c != config}}


def sweep(config: Config, **values: Sequence[Any]) -> dict[str, Config]:
    """Vary one parameter at a time, while all others stay as they are.

    Args:
        config: the values of all other parameters.
        values: the values to try, by parameter.

    Returns:
        Configurations by names such as ``"stride=4"``.

    Raises:
        TypeError, ValueError: as :func:`grid`.
    """
    settings: dict[str, Config] = {}
    for name, to_try in values.items():
        settings.update(grid(config, **{name: to_try}))
    return settings


def settings_of(definition: Mapping[str, Mapping[str, Any]]) -> dict[str, Config]:
    """Make configurations from their definition in JSON.

    Args:
        definition: for each name the ``method`` ("promerge" by default), the ``preset`` ("default"
            by default) and the parameters that differ from it. An optional ``sweep`` has the values
            to try one at a time, by parameter; the values become part of the names.

    Raises:
        TypeError: a method has no such parameter.
        ValueError: a method or preset is unknown, or a value is out of the parameter's range.

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
            settings.update({f"{name}, {values}": config for values, config in swept.items()})
    return settings


def values_of(kind: type[Config], texts: Mapping[str, str]) -> dict[str, list[Any]]:
    """Parse the values of parameters that a user typed, such as ``"2, 4, 6"``.

    Args:
        kind: the configuration class of the method.
        texts: the values, separated by commas, by parameter.

    Raises:
        ValueError: the method has no such parameter, or a text is no value of it.

    Examples:
        >>> from promerge_fo import ProMergeConfig
        >>> values_of(ProMergeConfig, {"stride": "2, 4", "filtering": "ioa,nms"})
        {'stride': [2.0, 4.0], 'filtering': ['ioa', 'nms']}
    """
    types = {record["name"]: record["type"] for record in kind.describe()}
    for name in texts:
        if name not in types:
            raise ValueError(
                f"{name} is no parameter of {kind.method}; its parameters are: " + ", ".join(types)
            )
    return {
        name: [_parse_value(name, part.strip(), types[name]) for part in text.split(",")]
        for name, text in texts.items()
    }


def changes_between(settings: Mapping[str, Config]) -> dict[str, list[Any]]:
    """The parameters in which settings differ; the method counts as a parameter.

    Returns:
        For each such parameter its value in each setting, or None if the method of a setting does
        not have the parameter.
    """
    records = [{"method": c.method, **c.to_dict()} for c in settings.values()]
    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: [record.get(name) for record in records] for name in names}
    return {name: values for name, values in columns.items() if len(set(values)) > 1}


def _name_of(config: Config, varied: Sequence[str]) -> str:
    values = config.to_dict()
    return ", ".join(f"{name}={values[name]}" for name in varied) or "as given"


def _parse_value(name: str, text: str, kind: str) -> str | float | bool:
    if kind == "choice":
        return text
    try:
        return {"true": True, "false": False}[text.lower()] if kind == "bool" else float(text)
    except (KeyError, ValueError):
        wanted = "true or false" if kind == "bool" else "a number"
        raise ValueError(f"{name}: {text!r} is not {wanted}") from None
