"""``reject``: reject masks, from the App."""

from __future__ import annotations

from ..review_operator import Decision


class Reject(Decision):
    """A form and a call of ``promerge_fo.dataset.reject``."""

    what = "reject"
    label = "ProMerge: reject masks"
    description = "The selected masks, or those of the current view, are rejected"
    icon = "thumb_down"
