"""Every parameter of the method, once: its meaning, its range and where it comes from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

__all__ = [
    "PRESETS",
    "BackgroundVote",
    "Filtering",
    "MergeRule",
    "ProMergeConfig",
    "Prompting",
    "Refine",
    "Score",
    "SplitComponents",
    "run_hash",
]


class Prompting(str, Enum):
    """How prompt patches are chosen (Sec. 3.2, App. C, Tab. 6)."""

    GRID = "grid"  #: every ``stride``-th patch of every ``stride``-th row
    RANDOM = "random"  #: as many patches as the grid has, drawn without repetition by ``seed``
    ITERATIVE = "iterative"  #: the grid, each prompt moved three times to its mask's centre
    ATTENTION = "attention"  #: the patches with the highest 5 % of ``prompt_scores`` (MHA)


class SplitComponents(str, Enum):
    """What happens to a foreground mask that falls into several 4-connected components."""

    RELATIVE = "relative"  #: keep those of >= ``min_component_ratio`` x the prompt's own one
    ALL = "all"  #: every component is a mask (Algorithm 1)
    NONE = "none"  #: the mask stays whole (Tab. 3, third row)


class BackgroundVote(str, Enum):
    """How background candidates become one background (Eq. 2, Tab. 4a)."""

    MAJORITY = "majority"  #: patches that more than half of the candidates hold
    UNION = "union"  #: patches that any candidate holds


class Filtering(str, Enum):
    """Which foreground masks go on to merging (Sec. 3.3, Tab. 4b, App. C)."""

    CASCADE = "cascade"  #: small masks first; only new patches count towards the overlap
    IOA = "ioa"  #: overlap with the background at most ``tau_ioa_bg``
    FEATURE = "feature"  #: similarity to the background at most ``tau_f_bg``
    NMS = "nms"  #: non-maximum suppression by IoU, larger masks first; no background step
    NONE = "none"  #: all masks, no background step (Tab. 3, first rows)


class MergeRule(str, Enum):
    """When a mask joins a cluster of larger masks (Sec. 3.2, Tab. 5)."""

    OFFICIAL = "official"  #: IoA > ``tau_overlap_merge``, or IoA > ``tau_ioa_merge`` and similar
    EITHER = "either"  #: similar, or IoA > ``tau_ioa_merge`` (Algorithm 1)
    IOA = "ioa"  #: IoA > ``tau_ioa_merge`` alone
    FEATURE = "feature"  #: similarity > ``tau_f_merge`` alone
    NONE = "none"  #: never


class Refine(str, Enum):
    """How patch masks become pixel masks."""

    CRF = "crf"  #: the dense CRF of this package, all masks of an image at once
    PYDENSECRF = "pydensecrf"  #: the reference implementation, mask by mask (extra)
    NONE = "none"  #: enlarged patches


class Score(str, Enum):
    """What a mask's confidence says."""

    QUALITY = "quality"  #: stability x contrast with the background x agreement (see scoring)
    CONSTANT = "constant"  #: 1 for every mask, as in the paper and in the released code


def _parameter(
    default: Any,
    meaning: str,
    source: str,
    low: float | None = None,
    high: float | None = None,
) -> Any:
    return field(
        default=default,
        metadata={"meaning": meaning, "source": source, "low": low, "high": high},
    )


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "official": {"score": Score.CONSTANT},
    "paper": {
        "score": Score.CONSTANT,
        "norm_eps": 0.0,
        "split_components": SplitComponents.ALL,
        "min_background_area": 0.0,
        "merge_rule": MergeRule.EITHER,
        "fill_holes": False,
        "min_refined_iou": 0.0,
    },
    "fast": {"stride": 2},
}
"""What each preset changes of the defaults; :meth:`ProMergeConfig.preset` says what they are."""


@dataclass(frozen=True)
class ProMergeConfig:
    """All parameters of ProMerge; frozen, checked when made, and written to and read from JSON.

    The defaults give the masks of the authors' released code ("official") with scores that rank
    masks. :meth:`preset` has the published variants whole, constant scores included. What each
    parameter means, its range and its source are in the dataclass fields' metadata, which forms
    and ``promerge segment --help`` show: see :meth:`describe`.

    Examples:
        >>> config = ProMergeConfig.preset("official").replace(stride=6, tau_b=0.3)
        >>> config.stride, config.score.value
        (6, 'constant')
        >>> ProMergeConfig.from_json(config.to_json()) == config
        True
        >>> ProMergeConfig(tau_b=3)
        Traceback (most recent call last):
            ...
        ValueError: tau_b is 3.0, but must lie in [-1, 1] (cosine above which ...)

    Raises:
        TypeError: an unknown parameter, or a value of the wrong type.
        ValueError: a value out of its range.
    """

    image_size: int = _parameter(
        480, "side in pixels at which masks are refined", "Sec. 4.1", 32, 8192
    )
    prompting: Prompting = _parameter(Prompting.GRID, "how prompts are chosen", "Tab. 6")
    stride: int = _parameter(4, "patches between two neighbouring prompts", "Sec. 4.3", 1, 1024)
    seed: int = _parameter(0, "seed of random prompting", "App. C", 0, 2**32 - 1)
    tau_b: float = _parameter(
        0.2, "cosine above which a patch belongs to a prompt's mask", "Sec. 4.3", -1, 1
    )
    norm_eps: float = _parameter(
        1e-5, "added to a feature's norm before dividing by it", "released code", 0, 1
    )
    split_components: SplitComponents = _parameter(
        SplitComponents.RELATIVE, "how a mask of several parts is split", "Sec. 4.1, released code"
    )
    min_component_ratio: float = _parameter(
        0.5,
        "smallest part that 'relative' splitting keeps, as a share of the part with the prompt",
        "released code",
        0,
        1e6,
    )
    background_vote: BackgroundVote = _parameter(
        BackgroundVote.MAJORITY, "how background candidates are combined", "Eq. 2, Tab. 4a"
    )
    min_background_area: float = _parameter(
        0.1,
        "share of the image under which a background counts as none, and the image has no masks",
        "released code",
        0,
        1,
    )
    filtering: Filtering = _parameter(
        Filtering.CASCADE, "how background-like masks are removed", "Sec. 3.3, Tab. 4b"
    )
    tau_ioa_bg: float = _parameter(
        0.8, "share of a mask's (new) patches in the background that drops it", "App. A", 0, 1
    )
    tau_f_bg: float = _parameter(
        0.1, "similarity to the background that drops a mask", "App. A", -1, 1
    )
    nms_iou: float = _parameter(
        0.5, "IoU with a larger mask that drops a mask in 'nms' filtering", "App. C", 0, 1
    )
    merge_rule: MergeRule = _parameter(
        MergeRule.OFFICIAL, "when two masks are merged", "Sec. 3.2, Tab. 5"
    )
    tau_overlap_merge: float = _parameter(
        0.5, "IoA above which masks merge whatever their features", "released code", 0, 1
    )
    tau_ioa_merge: float = _parameter(0.1, "IoA above which masks may merge", "App. A", 0, 1)
    tau_f_merge: float = _parameter(0.1, "similarity from which masks may merge", "Sec. 4.3", -1, 1)
    refine: Refine = _parameter(Refine.CRF, "how patch masks become pixel masks", "Sec. 4.1")
    fill_holes: bool = _parameter(True, "fill the holes of refined masks", "released code")
    min_refined_iou: float = _parameter(
        0.5, "IoU with the unrefined mask under which a mask is dropped", "released code", 0, 1
    )
    score: Score = _parameter(Score.QUALITY, "what the confidence says", "this package")

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            object.__setattr__(self, f.name, _checked(f, getattr(self, f.name)))

    @classmethod
    def preset(cls, name: str) -> ProMergeConfig:
        """A published variant, or a variant for small machines.

        Args:
            name: ``"official"``, the authors' released code; ``"paper"``, Algorithm 1;
                ``"default"``, the same as ``ProMergeConfig()``; ``"fast"``, the default for an
                encoder with 16-pixel patches (30 x 30 patches need stride 2 for 225 prompts).

        Raises:
            ValueError: an unknown name.
        """
        if name not in PRESETS:
            raise ValueError(
                f"there is no preset {name!r}; the presets are {', '.join(map(repr, PRESETS))}"
            )
        return cls(**PRESETS[name])

    def replace(self, **changes: Any) -> ProMergeConfig:
        """A copy with some parameters changed.

        Raises:
            TypeError: an unknown parameter, with the nearest known name.
            ValueError: a value out of its range.
        """
        return type(self).from_dict({**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Parameters by name, enums as their values: what JSON can hold."""
        return {
            f.name: v.value if isinstance(v := getattr(self, f.name), Enum) else v
            for f in dataclasses.fields(self)
        }

    @classmethod
    def from_dict(cls, parameters: dict[str, Any]) -> ProMergeConfig:
        """The inverse of :meth:`to_dict`; parameters left out take their defaults.

        Raises:
            TypeError: an unknown parameter, with the nearest known name.
            ValueError: a value out of its range.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        for name in parameters:
            if name not in known:
                import difflib

                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise TypeError(
                    f"{name!r} is no parameter of {cls.__name__}{hint} "
                    f"The parameters are: {', '.join(known)}"
                )
        return cls(**parameters)

    def to_json(self) -> str:
        """JSON text with sorted keys: equal configurations give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ProMergeConfig:
        """The inverse of :meth:`to_json`.

        Raises:
            TypeError: not a JSON object, or an unknown parameter.
            ValueError: not JSON, or a value out of its range.
        """
        parameters = json.loads(text)
        if not isinstance(parameters, dict):
            raise TypeError(f"expected a JSON object with parameters, got {text[:60]!r}")
        return cls.from_dict(parameters)

    @classmethod
    def describe(cls) -> list[dict[str, Any]]:
        """One record a parameter, for forms and help texts.

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
            records.append(
                {"name": f.name, "type": kind, "default": default, "choices": choices, **f.metadata}
            )
        return records


def _checked(f: dataclasses.Field[Any], value: Any) -> Any:
    """The value in its own type, or an error that names the parameter, the value and the range."""
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


def run_hash(parts: dict[str, Any]) -> str:
    """The name of a run: a hash of everything that decides its masks.

    Args:
        parts: what decides the masks (method, configuration, encoder, facet, weights' SHA-256,
            precision, image size, resize), as JSON can hold it.

    Returns:
        16 hexadecimal digits of the SHA-256 of the canonical JSON.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


Status = Literal[
    "ok", "no_background", "background_too_small", "all_filtered", "all_rejected", "failed"
]
"""Why an image has masks or none: the steps that can leave it without, in their order; "failed"
for an image that could not be read or computed."""
