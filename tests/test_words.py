"""Numbers in words."""

import pytest

from promerge_fo.words import duration, is_text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.3, "0 seconds"),
        (42.4, "42 seconds"),
        (90, "1 minute and 30 seconds"),
        (125, "2 minutes"),
        (7500, "2 hours and 5 minutes"),
        (86_399, "1 day"),
        (200_000, "2 days and 8 hours"),
        (3 * 86_400 - 60, "3 days"),  # not 2 days and 24 hours
        (60 * 86_400, "60 days"),
    ],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_text_that_can_be_stored():
    assert [is_text(value) for value in ("", "dög", "\ud800", None, 7, b"a")] == [
        True, True, False, False, False, False,
    ]  # fmt: skip
