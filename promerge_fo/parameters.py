"""The base of all configurations: parameters that are frozen, checked and written as JSON."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Parameters", "parameter"]


def parameter(
    default: Any,
    meaning: str,
    source: str,
    low: float | None = None,
    high: float | None = None,
    *,
    later: bool = False,
) -> Any:
    """A field of :class:`Parameters`.

    Args:
        default: an enum, bool, int or float; values must be of the same type.
        meaning: for forms, help texts and error messages.
        source: a section of a paper, or "released code".
        low: the smallest value, if it is a number.
        high: the largest value, if it is a number.
        later: whether it was added after the first runs were made; see :meth:`Parameters.hashed`.
    """
    return field(
        default=default,
        metadata={"meaning": meaning, "source": source, "low": low, "high": high, "later": later},
    )


@dataclass(frozen=True)
class Parameters:
    """All parameters of a method, each a field by :func:`parameter`; checked when created.

    Attributes:
        method: the method's name.
        presets: the changes that each preset makes to the defaults.
        named: the parameters that were given by name, or changed by :meth:`replace`; not those of
            a preset. It is no part of the value: equal parameters are equal whoever named them.
    """

    method: ClassVar[str]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    named: ClassVar[frozenset[str]] = frozenset()

    def __new__(cls, *args: Any, **parameters: Any) -> Self:
        """Note the names before the dataclass fills in its defaults."""
        self = super().__new__(cls)
        given = [f.name for f in dataclasses.fields(cls)[: len(args)]]
        object.__setattr__(self, "named", frozenset([*given, *parameters]))
        return self

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            object.__setattr__(self, f.name, _checked(f, getattr(self, f.name)))

    @classmethod
    def preset(cls, name: str) -> Self:
        """The configuration of a preset; the class describes its presets.

        Raises:
            ValueError: an unknown name.
        """
        if name not in cls.presets:
            raise ValueError(
                f"there is no preset {name!r}; the presets are {', '.join(map(repr, cls.presets))}"
            )
        return cls(**cls.presets[name])._named(frozenset())

    def replace(self, **changes: Any) -> Self:
        """A copy with some parameters changed.

        Raises:
            TypeError: an unknown parameter, with the nearest known name.
            ValueError: a value out of its range.
        """
        changed = type(self).from_dict({**self.to_dict(), **changes})
        return changed._named(self.named | set(changes))

    def suggest(self, **values: Any) -> Self:
        """A copy with other values for the parameters that are not :attr:`named`.

        Examples:
            >>> from promerge_fo import ProMergeConfig
            >>> config = ProMergeConfig(stride=3).suggest(stride=2, tau_b=0.5)
            >>> config.stride, config.tau_b, sorted(config.named)
            (3, 0.5, ['stride'])
        """
        free = {name: value for name, value in values.items() if name not in self.named}
        return self.replace(**free)._named(self.named)

    def _named(self, names: frozenset[str]) -> Self:
        object.__setattr__(self, "named", names)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Parameters by name, enums as their values: types that JSON has."""
        return {
            f.name: v.value if isinstance(v := getattr(self, f.name), Enum) else v
            for f in dataclasses.fields(self)
        }

    def hashed(self) -> dict[str, Any]:
        """What the run hash is made of: :meth:`to_dict`, without later parameters at their default.

        A parameter that was added later, and is not used, does not change the hash of a run.
        """
        unused = [
            f.name
            for f in dataclasses.fields(self)
            if f.metadata["later"] and getattr(self, f.name) == f.default
        ]
        return {name: value for name, value in self.to_dict().items() if name not in unused}

    @classmethod
    def from_dict(cls, parameters: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`; missing parameters take their defaults.

        Raises:
            TypeError: an unknown parameter, with the nearest known name.
            ValueError: a value out of its range.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        for name in parameters:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else "."
                raise TypeError(
                    f"{name!r} is no parameter of {cls.__name__}{hint} "
                    f"The parameters are: {', '.join(known)}"
                )
        return cls(**parameters)

    def to_json(self) -> str:
        """JSON text with sorted keys: equal configurations give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of :meth:`to_json`.

        Raises:
            TypeError: not a JSON object, or an unknown parameter.
            ValueError: not JSON, or a value out of its range.
        """
        parameters = json.loads(text)
        if not isinstance(parameters, dict):
            raise TypeError(f"the text must be a JSON object with parameters, got {text[:60]!r}")
        return cls.from_dict(parameters)

    @classmethod
    def describe(cls) -> list[dict[str, Any]]:
        """One record for each parameter, for forms and help texts.

        Returns:
            Dictionaries with ``name``, ``type`` (``"int"``, ``"float"``, ``"bool"`` or
            ``"choice"``), ``default``, ``choices`` (values, or None), ``low``, ``high``,
            ``meaning`` and ``source``, in the order of the method's steps.
        """
        records = []
        for f in dataclasses.fields(cls):
            choices = [c.value for c in type(f.default)] if isinstance(f.default, Enum) else None
            default = f.default.value if isinstance(f.default, Enum) else f.default
            kind = "choice" if choices else type(f.default).__name__
            shown = {key: f.metadata[key] for key in ("low", "high", "meaning", "source")}
            records.append(
                {"name": f.name, "type": kind, "default": default, "choices": choices, **shown}
            )
        return records


def _checked(f: dataclasses.Field[Any], value: Any) -> Any:
    """The value in the parameter's type, or an error with its name, the value and the range."""
    what = f"({f.metadata['meaning']})"
    if isinstance(f.default, Enum):
        kind = type(f.default)
        try:
            return kind(value)
        except ValueError:
            choices = ", ".join(repr(c.value) for c in kind)
            raise ValueError(
                f"{f.name} is {value!r}, but must be one of {choices} {what}"
            ) from None
    if isinstance(f.default, bool):
        if not isinstance(value, bool):
            raise TypeError(f"{f.name} is {value!r}, but must be True or False {what}")
        return value
    number = _number(value)
    if number is None:
        raise TypeError(f"{f.name} is {value!r}, but must be a number {what}")
    if isinstance(f.default, int):
        if number != int(number):
            raise TypeError(f"{f.name} is {value!r}, but must be a whole number {what}")
        number = int(value)
    low, high = f.metadata["low"], f.metadata["high"]
    if not low <= number <= high:
        raise ValueError(f"{f.name} is {number}, but must lie in [{low:g}, {high:g}] {what}")
    return number


def _number(value: Any) -> float | None:
    """A finite float, also from NumPy scalars; None for bool, text, NaN and infinities."""
    if isinstance(value, (bool, str, bytes)):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < float("inf") else None
