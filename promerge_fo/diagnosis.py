"""Why most images of a run have no masks, and what to do about it, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["FIRST", "diagnose"]

FIRST = 32  #: images after which a run is looked at for the first time, while it can be stopped

_TRY = (
    "'promerge explain IMAGE' shows each step on an image. The paper's thresholds suit DINO's "
    "keys, whose cosines lie about zero; for other encoders, a calibration chooses others. It is "
    "made unless it is switched off, but not for the presets 'official' and 'paper', nor for "
    "cuts. Or try another facet ('query' or 'value'), or the preset 'proposals'"
)
#: What a status means, and what to do. The parameters are ProMerge's.
_STEPS = {
    "no_background": (
        "no prompt's mask reached along two sides of the image, so that nothing was background; "
        "a lower tau_b makes larger masks, and filtering='none' needs no background"
    ),
    "background_too_small": (
        "the masks along the sides of the image have too little in common to be background; "
        "a lower tau_b or min_background_area, or background_vote='union', leaves more of it"
    ),
    "all_filtered": (
        "all masks were background or resembled it (tau_ioa_bg, tau_f_bg), as they do if nearly "
        "all patches are alike; a higher tau_b makes smaller masks, and a higher tau_f_bg keeps "
        "more of them"
    ),
    "no_cut": (
        "no cut was better than any other, as nearly all patches are alike; a higher tau tells "
        "them apart"
    ),
    "all_rejected": (
        "refinement changed all masks too much; a lower min_refined_iou keeps them, and "
        "refine='none' leaves them as they are"
    ),
}


def diagnose(
    counts: Mapping[str, int],
    cosines: Sequence[float] | None = None,
    tau_b: float | None = None,
) -> str | None:
    """Why most images have no masks.

    Args:
        counts: the number of images by status, see :data:`promerge_fo.config.Status`.
        cosines: 5, 25, 50, 75 and 95 % percentiles of the affinities, if they are known.
        tau_b: the threshold on them.

    Returns:
        The step after which most images had no masks left, and what to do, in words; None if at
        least half of the images have masks. Images that failed do not count.

    Examples:
        >>> print(diagnose({"ok": 1, "no_cut": 2, "failed": 9})[:66])
        2 of 3 images have no masks (2 no_cut): no cut was better than any
        >>> diagnose({"ok": 2, "no_cut": 1}) is None
        True
    """
    without = {status: n for status, n in counts.items() if status in _STEPS and n}
    empty = sum(without.values())
    images = empty + counts.get("ok", 0)
    if 2 * empty <= images:
        return None
    listed = sorted(without.items(), key=lambda item: -item[1])
    numbers = ", ".join(f"{n} {status}" for status, n in listed)
    text = f"{empty} of {images} images have no masks ({numbers}): {_STEPS[listed[0][0]]}. "
    if cosines and tau_b is not None:
        shown = " ".join(f"{value:.2f}" for value in cosines)
        text += f"The cosines of patches are {shown} (5, 25, 50, 75, 95 %), tau_b is {tau_b:g}. "
    return text + _TRY
