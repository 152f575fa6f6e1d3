"""``accept``: accept masks, from the App."""

from __future__ import annotations

from ..review_operator import Decision


class Accept(Decision):
    """A form and a call of ``promerge_fo.dataset.accept``."""

    what = "accept"
    label = "ProMerge: accept masks"
    description = "The selected masks, or those of the current view, are accepted"
    icon = "thumb_up"
