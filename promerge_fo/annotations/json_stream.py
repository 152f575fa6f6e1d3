"""Read the elements of large JSON files one by one.

The file is a list of results, or an object of lists like COCO's annotation files. It is read
through a window that holds little more than one element, so memory does not grow with the file.
Elements that are too long or nested too deep are refused before they take much memory. Each element
is decoded by Python's own decoder, which is compiled.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

__all__ = ["Element", "holds_object", "read_elements"]

LONGEST = 1 << 23  #: characters that an element may have; even the most complex masks have fewer
_CHUNK = 1 << 18  # characters that are read at once, at least
_SPACE = re.compile(r"[ \t\n\r]*")


class Element(NamedTuple):
    """One element of a list in a JSON file.

    Attributes:
        section: the key of the list, if the file is an object; None if the file is a list.
        place: the index of the element in its list.
        value: the decoded element; its numbers may be NaN or infinite.
    """

    section: str | None
    place: int
    value: Any


def read_elements(path: str | os.PathLike[str]) -> Iterator[Element]:
    """Read the elements of a JSON list, or of all lists that are values of a JSON object.

    Args:
        path: a file in UTF-8.

    Yields:
        The elements in the order of the file.

    Raises:
        ValueError: the file is not such JSON, or is incomplete, or an element is longer than
            ``LONGEST`` characters or nested too deep to be decoded. The message says where. The
            elements before that place have been yielded by then.
        OSError: the file cannot be read.
    """
    with Path(path).open(encoding="utf-8-sig") as file:
        text = _Window(file, Path(path))
        try:
            if text.peek() == "[":
                yield from _list(text, None)
            elif text.peek() == "{":
                yield from _object(text)
            else:
                raise text.error("it holds neither a list nor an object")
            if text.peek():
                raise text.error("something follows its end")
        except UnicodeDecodeError as error:
            raise text.error(f"it is not UTF-8 ({error.reason})") from error
        except RecursionError:
            raise text.error("it is nested too deep") from None


def holds_object(path: str | os.PathLike[str]) -> bool:
    """Whether a file starts like a JSON object, and not like a list.

    Raises:
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        return file.read(_CHUNK).lstrip(b"\xef\xbb\xbf \t\n\r").startswith(b"{")


def _list(text: _Window, section: str | None) -> Iterator[Element]:
    text.take("[")
    if text.peek() == "]":
        text.take("]")
        return
    index = 0
    while True:
        text.place = f"element {index}" + (f" of {section!a:.80}" if section is not None else "")
        yield Element(section, index, text.value())
        index += 1
        if text.take(",]") == "]":
            break
    text.place = ""


def _object(text: _Window) -> Iterator[Element]:
    text.take("{")
    if text.peek() == "}":
        text.take("}")
        return
    while True:
        key = text.value()
        if not isinstance(key, str):
            raise text.error("a key is no text")
        text.take(":")
        if text.peek() == "[":
            yield from _list(text, key)
        else:
            text.value()
        if text.take(",}") == "}":
            return


class _Window:
    """The part of a file that has been read, but not decoded yet.

    Attributes:
        place: the element that is being read, for messages.
    """

    def __init__(self, file: IO[str], path: Path) -> None:
        self._file = file
        self._path = path
        self._text = ""
        self._at = 0
        self._before = 0  # characters that have left the window
        self.place = ""
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """The next character that is not white space; empty at the end of the file."""
        while (at := self._skip(self._at)) == len(self._text):
            self._at = at
            if not self._more():
                return ""
        self._at = at
        return self._text[at]

    def take(self, wanted: str) -> str:
        """Skip and return the next character, which must be one of these."""
        found = self.peek()
        if not found:
            raise self.error("it ends too soon")
        if found not in wanted:
            expected = " or ".join(wanted)
            raise self.error(f"there is {found!a} where {expected} should be")
        self._at += 1
        return found

    def value(self) -> Any:
        """Decode the next value, of any type."""
        self.peek()
        while True:
            value, length, problem = None, 0, ""
            try:
                value, end = self._decode(self._text, self._at)
                length = end - self._at
            except json.JSONDecodeError as error:
                problem = error.msg
            except ValueError:  # Python limits the digits of an integer to 4,300
                raise self.error("a number has too many digits") from None
            whole = not problem and self._is_whole(self._at + length)
            if (length if whole else self.waiting) > LONGEST:
                reason = f" ({problem})" if problem else ""
                raise self.error(f"it is longer than {LONGEST:,} characters, or broken{reason}")
            if whole or not self._more():
                if problem:
                    raise self.error(f"it ends too soon, or is broken ({problem})")
                self._at += length
                return value

    def _is_whole(self, end: int) -> bool:
        """Whether a value ends here; a number at the end of the window may go on after it."""
        following = self._skip(end)
        if following == len(self._text):
            return False
        return following > end or self._text[end] not in "0123456789+-.eE"

    @property
    def waiting(self) -> int:
        """The number of characters in the window that are not decoded yet."""
        return len(self._text) - self._at

    def error(self, reason: str) -> ValueError:
        """An error that says what is wrong, and where."""
        place = f"{self.place}, " if self.place else ""
        where = f"{place}character {self._before + self._at:,}"
        return ValueError(f"{self._path} is no JSON that can be read: at {where}, {reason}")

    def _skip(self, start: int) -> int:
        match = _SPACE.match(self._text, start)
        assert match is not None  # the pattern also matches the empty string
        return match.end()

    def _more(self) -> bool:
        """Read on, as much as is waiting; return whether there was anything left to read."""
        rest = self._text[self._at :]
        chunk = self._file.read(min(max(_CHUNK, len(rest)), LONGEST))
        self._before += self._at
        self._text, self._at = rest + chunk, 0
        return bool(chunk)
