"""``accept``: accept masks, from the App."""

from __future__ import annotations

from ..decision import Decision


class Accept(Decision):
    """A form and a call of ``promerge_fo.dataset.accept``."""

    name_ = "accept"
    done = "accepted"
    icon = "thumb_up"
