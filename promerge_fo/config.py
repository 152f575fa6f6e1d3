"""Every parameter of the methods, in one place: its meaning, its range and its source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, ClassVar, Literal

from promerge_fo.parameters import Parameters, parameter

__all__ = [
    "METHODS",
    "PRESETS",
    "BackgroundVote",
    "Config",
    "Filtering",
    "MaskCutConfig",
    "MergeRule",
    "ProMergeConfig",
    "Prompting",
    "Refine",
    "Score",
    "SplitComponents",
    "TokenCutConfig",
    "run_hash",
]


class Prompting(str, Enum):
    """How prompt patches are chosen (Sec. 3.2, App. C, Tab. 6)."""

    GRID = "grid"  #: every ``stride``-th patch of every ``stride``-th row
    RANDOM = "random"  #: as many patches as the grid has, drawn without repetition by ``seed``
    ITERATIVE = "iterative"  #: the grid, each prompt moved three times to its mask's centre
    ATTENTIVE = "attentive"  #: the most typical patch of each FINCH cluster; no more than the grid
    ATTENTION = "attention"  #: the patches with the highest 5 % of ``prompt_scores`` (MHA)


class SplitComponents(str, Enum):
    """What happens to a foreground mask that falls into several 4-connected components."""

    RELATIVE = "relative"  #: keep those of >= ``min_component_ratio`` x the prompt's own one
    ALL = "all"  #: every component is a mask (Algorithm 1)
    NONE = "none"  #: the mask stays whole (Tab. 3, third row)


class BackgroundVote(str, Enum):
    """How background candidates become one background (Eq. 2, Tab. 4a)."""

    MAJORITY = "majority"  #: patches in more than half of the candidates
    UNION = "union"  #: patches in any candidate


class Filtering(str, Enum):
    """Which foreground masks are kept for merging (Sec. 3.3, Tab. 4b, App. C)."""

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
    """The meaning of a mask's confidence."""

    QUALITY = "quality"  #: stability x contrast with the background x agreement (see scoring)
    OBJECTNESS = "objectness"  #: size x contrast x edge x agreement
    CONSTANT = "constant"  #: 1 for every mask, as in the papers and in their released code


# Parameters of several methods; each method adds its own source, and its default if they differ.
_image_size = partial(
    parameter, 480, "side in pixels at which masks are refined", low=32, high=8192
)
_tau = partial(parameter, meaning="cosine above which two patches are alike", low=0, high=1)
_eps = partial(parameter, 1e-5, "affinity of two patches that are not alike", low=1e-7, high=0.1)
_refine = partial(parameter, Refine.CRF, "how patch masks become pixel masks")
_fill_holes = partial(parameter, meaning="fill the holes of refined masks")
_min_refined_iou = partial(
    parameter, meaning="IoU with the unrefined mask below which a mask is dropped", low=0, high=1
)
_later = partial(parameter, source="this package", later=True)
_score = partial(parameter, Score.QUALITY, "meaning of the confidence", "this package")


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
    "proposals": {
        "stride": 3,
        "levels": 5,
        "tau_f_bg": 0.3,
        "min_mask_area": 0.003,
        "duplicate_iou": 0.75,
        "part_penalty": 0.5,
        "max_masks": 100,
        "crf_scale": 0.5,
    },
}
"""The changes that each preset makes to ProMerge's defaults; see :class:`ProMergeConfig`."""

_CUT_PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "official": {"score": Score.CONSTANT},
    "fast": {},
}


@dataclass(frozen=True)
class ProMergeConfig(Parameters):
    """All parameters of ProMerge: frozen, checked when created, written to and read from JSON.

    The defaults give the masks of the authors' released code, with scores that rank masks.
    :meth:`describe` gives the meaning, range and source of each parameter, as forms and
    ``promerge segment --help`` show them.

    The presets are ``"official"``, the authors' released code, and ``"paper"``, Algorithm 1, both
    complete, with their constant scores; ``"default"``, the same as ``ProMergeConfig()``; and
    ``"fast"``, the default for an encoder with 16-pixel patches (30 x 30 patches need stride 2 for
    225 prompts). ``"proposals"`` is for all objects in place of the few that merging leaves: masks
    at several levels of similarity, ranked, without near-duplicates.

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

    method: ClassVar[str] = "promerge"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS

    image_size: int = _image_size("Sec. 4.1")
    prompting: Prompting = parameter(Prompting.GRID, "how prompts are chosen", "Tab. 6")
    stride: int = parameter(4, "patches from one prompt to the next", "Sec. 4.3", 1, 1024)
    seed: int = parameter(0, "seed of random prompting", "App. C", 0, 2**32 - 1)
    tau_b: float = parameter(
        0.2, "cosine above which a patch belongs to a prompt's mask", "Sec. 4.3", -1, 1
    )
    norm_eps: float = parameter(
        1e-5, "added to a feature's norm before dividing by it", "released code", 0, 1
    )
    split_components: SplitComponents = parameter(
        SplitComponents.RELATIVE, "how a mask of several parts is split", "Sec. 4.1, released code"
    )
    min_component_ratio: float = parameter(
        0.5,
        "smallest part that 'relative' splitting keeps, as a share of the part with the prompt",
        "released code",
        0,
        1e6,
    )
    background_vote: BackgroundVote = parameter(
        BackgroundVote.MAJORITY, "how background candidates are combined", "Eq. 2, Tab. 4a"
    )
    min_background_area: float = parameter(
        0.1, "background share of the image below which there are no masks", "released code", 0, 1
    )
    filtering: Filtering = parameter(
        Filtering.CASCADE, "how background-like masks are removed", "Sec. 3.3, Tab. 4b"
    )
    tau_ioa_bg: float = parameter(
        0.8, "a mask is dropped if this share of its (new) patches is background", "App. A", 0, 1
    )
    tau_f_bg: float = parameter(
        0.1, "similarity to the background from which a mask is dropped", "App. A", -1, 1
    )
    nms_iou: float = parameter(
        0.5, "IoU with a larger mask above which 'nms' filtering drops a mask", "App. C", 0, 1
    )
    merge_rule: MergeRule = parameter(
        MergeRule.OFFICIAL, "when two masks are merged", "Sec. 3.2, Tab. 5"
    )
    tau_overlap_merge: float = parameter(
        0.5, "IoA above which masks merge, whatever their features", "released code", 0, 1
    )
    tau_ioa_merge: float = parameter(0.1, "IoA above which masks may merge", "App. A", 0, 1)
    tau_f_merge: float = parameter(0.1, "similarity from which masks may merge", "Sec. 4.3", -1, 1)
    levels: int = _later(
        1, "levels of similarity with masks; those of the first alone are merged", low=1, high=16
    )
    low_tau_b: float = _later(0.4, "tau_b of the second level", low=-1, high=1)
    high_tau_b: float = _later(0.75, "tau_b of the last level", low=-1, high=1)
    min_mask_area: float = _later(
        0.0, "share of the image below which a mask is dropped, before refinement", low=0, high=1
    )
    duplicate_iou: float = _later(
        1.0, "IoU with a better mask above which a mask is dropped", low=0, high=1
    )
    part_penalty: float = _later(
        0.0, "share of its score that a mask loses if it lies in a better one", low=0, high=1
    )
    max_masks: int = _later(
        0, "masks of an image that are kept, the best ones; 0 keeps all", low=0, high=1000
    )
    refine: Refine = _refine("Sec. 4.1")
    crf_scale: float = _later(
        1.0, "share of image_size at which the CRF works, its kernels alike", low=0.125, high=1
    )
    fill_holes: bool = _fill_holes(True, source="released code")
    min_refined_iou: float = _min_refined_iou(0.5, source="released code")
    score: Score = parameter(Score.OBJECTNESS, "meaning of the confidence", "this package")

    @property
    def wants_prompt_scores(self) -> bool:
        """Whether the encoder must give prompt scores."""
        return self.prompting is Prompting.ATTENTION

    @property
    def can_calibrate(self) -> bool:
        """Whether its thresholds may be chosen for an encoder: not those of the papers' presets."""
        return self.score is not Score.CONSTANT

    @property
    def has_proposals(self) -> bool:
        """Whether masks are ranked and selected, and have levels and parents."""
        return bool(
            self.levels > 1
            or self.min_mask_area
            or self.duplicate_iou < 1
            or self.part_penalty
            or self.max_masks
        )


@dataclass(frozen=True)
class TokenCutConfig(Parameters):
    """All parameters of TokenCut (Wang et al., CVPR 2022): one normalised cut, one mask.

    A frozen configuration like :class:`ProMergeConfig`. The preset ``"official"`` has the constant
    score of the paper; ``"default"``, the same as ``TokenCutConfig()``, has scores that rank masks,
    as has ``"fast"``, which only differs in the encoder.

    Examples:
        >>> TokenCutConfig.preset("official").replace(tau=0.3).to_dict()["tau"]
        0.3

    Raises:
        TypeError, ValueError: as :class:`ProMergeConfig`.
    """

    method: ClassVar[str] = "tokencut"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = _CUT_PRESETS
    wants_prompt_scores: ClassVar[bool] = False
    can_calibrate: ClassVar[bool] = False
    has_proposals: ClassVar[bool] = False
    crf_scale: ClassVar[float] = 1.0

    image_size: int = _image_size("ProMerge, Sec. 4.1")
    tau: float = _tau(0.2, source="TokenCut, Sec. 3")
    eps: float = _eps("TokenCut, Sec. 3")
    refine: Refine = _refine("TokenCut, Sec. 3")
    fill_holes: bool = _fill_holes(False, source="TokenCut, Sec. 3")
    min_refined_iou: float = _min_refined_iou(0.0, source="TokenCut, Sec. 3")
    score: Score = _score()


@dataclass(frozen=True)
class MaskCutConfig(Parameters):
    """All parameters of MaskCut (CutLER; Wang et al., CVPR 2023): cuts one after the other.

    A frozen configuration like :class:`ProMergeConfig`. The preset ``"official"`` has the constant
    score of the authors' released code; ``"default"``, the same as ``MaskCutConfig()``, has scores
    that rank masks, as has ``"fast"``, which only differs in the encoder.

    Examples:
        >>> MaskCutConfig(cuts=6).tau
        0.15

    Raises:
        TypeError, ValueError: as :class:`ProMergeConfig`.
    """

    method: ClassVar[str] = "maskcut"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = _CUT_PRESETS
    wants_prompt_scores: ClassVar[bool] = False
    can_calibrate: ClassVar[bool] = False
    has_proposals: ClassVar[bool] = False
    crf_scale: ClassVar[float] = 1.0

    image_size: int = _image_size("CutLER, Sec. 3.5")
    cuts: int = parameter(
        3, "number of cuts; each gives one mask at most (N, or t)", "CutLER, Sec. 3.2", 1, 100
    )
    tau: float = _tau(0.15, source="CutLER, Sec. 3.2")
    eps: float = _eps("CutLER, Sec. 3.2")
    max_corners: int = parameter(
        2, "corners of the image that a foreground may hold", "CutLER, Sec. 3.2", 0, 4
    )
    max_overlap: float = parameter(
        0.5, "IoU with the cut before above which a cut gives no mask", "released code", 0, 1
    )
    min_area: float = parameter(
        0.01, "share of the image that a mask after the first must exceed", "released code", 0, 1
    )
    refine: Refine = _refine("CutLER, Sec. 3.5")
    fill_holes: bool = _fill_holes(True, source="released code")
    min_refined_iou: float = _min_refined_iou(0.5, source="released code")
    score: Score = _score()


Config = ProMergeConfig | MaskCutConfig | TokenCutConfig
"""The parameters of any method."""


METHODS: dict[str, type[Config]] = {
    config.method: config for config in (ProMergeConfig, MaskCutConfig, TokenCutConfig)
}
"""The configuration class of each method, by the method's name."""


def preset_encoder(preset: str) -> str:
    """The name of the encoder that a preset uses by default."""
    return "vit_small_patch16_224.dino" if preset == "fast" else "vit_base_patch8_224.dino"


def run_hash(parts: dict[str, Any]) -> str:
    """The name of a run: a hash of everything that decides its masks.

    Args:
        parts: method, configuration, encoder, facet, weights' SHA-256, precision, image size and
            resize, in types that JSON has. Parameters that were added to a method later count only
            if they are used: the masks of older runs keep their names.

    Returns:
        16 hexadecimal digits of the SHA-256 of the canonical JSON.
    """
    if "calibration" in parts:  # its thresholds are in the configuration, its words decide nothing
        calibration = parts["calibration"]
        centre = calibration["centre"] if calibration["is_centred"] else None
        parts = {**parts, "calibration": {"centre": centre}}
    method = METHODS.get(str(parts.get("method")))
    if method is not None and "config" in parts:
        parts = {**parts, "config": method.from_dict(parts["config"]).hashed()}
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


Status = Literal[
    "ok",
    "no_background",
    "background_too_small",
    "all_filtered",
    "no_cut",
    "all_rejected",
    "failed",
]
"""Whether an image has masks ("ok"), or the step after which none were left, in the order of the
steps: three of ProMerge's, "no_cut" of MaskCut and TokenCut, and refinement ("all_rejected");
"failed" is an image that could not be read or computed."""
