"""``reject``: reject masks, from the App."""

from __future__ import annotations

from ..decision import Decision


class Reject(Decision):
    """A form and a call of ``promerge_fo.dataset.reject``."""

    name_ = "reject"
    done = "rejected"
    icon = "thumb_down"
