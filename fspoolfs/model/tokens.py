"""Cuts XML text that arrives in pieces behind whole tokens: tags, comments, instructions, references.

expat is then never shown half a token. It would look at the half again with each piece that follows,
and newer ones (and older ones with the fix of CVE-2023-52425) put that off until much more has come,
so that the end of a document would go unseen. Works on ASCII and what extends it. Text that is cut
wrongly because it is malformed is handed on at once: finding that out is expat's work.
"""

from __future__ import annotations

import re
from typing import Final

_MARKUP: Final = re.compile(rb"[<&]")
_REFERENCE_END: Final = re.compile(rb"[;<&\s]")
_IN_TAG: Final = re.compile(rb"[<>'\"]")
_IN_VALUE: Final = {quote: re.compile(b"[<" + quote + b"]") for quote in (b"'", b'"')}
#: What begins with these bytes ends with those.
_DELIMITED: Final = {b"<!--": b"-->", b"<![CDATA[": b"]]>", b"<?": b"?>"}
DOCTYPE: Final = b"<!DOCTYPE"
_LONGEST: Final = len(DOCTYPE)


class Tokens:
    """Takes pieces and gives back what is whole; the rest is held."""

    def __init__(self) -> None:
        self._held = bytearray()
        #: How much of `held` need not be looked at again; it never lies inside a delimiter.
        self._seen = 0
        #: The quote of the attribute value that `seen` lies in.
        self._quote = b""

    def holds(self, beginning: bytes) -> bool:
        """Whether the token whose end has not come yet begins so."""
        return self._held.startswith(beginning)

    def take(self, data: bytes) -> bytes:
        """All that is whole of what was held and `data`."""
        self._held += data
        whole = 0
        while (end := self._token_end(whole)) is not None:
            whole, self._seen, self._quote = end, end, b""
        released = bytes(self._held[:whole])
        del self._held[:whole]
        self._seen -= whole
        return released

    def _token_end(self, start: int) -> int | None:
        """Where the token at `start` ends; `None` where more is needed."""
        held = self._held
        if start == len(held):
            return None
        if held[start] == ord("&"):
            return self._reference_end(start)
        if held[start] != ord("<"):
            found = _MARKUP.search(held, start)
            return found.start() if found else len(held)
        head = bytes(held[start : start + _LONGEST])
        for begin, end in _DELIMITED.items():
            if head.startswith(begin):
                return self._find(end, start + len(begin))
        if head.startswith(b"<!"):
            is_open = any(word.startswith(head) for word in (*_DELIMITED, DOCTYPE))
            return None if is_open or head == DOCTYPE else len(held)
        return self._tag_end(start)

    def _reference_end(self, start: int) -> int | None:
        found = _REFERENCE_END.search(self._held, max(start + 1, self._seen))
        if found is None:
            self._seen = len(self._held)
            return None
        return found.end() if found.group() == b";" else found.start()

    def _find(self, delimiter: bytes, start: int) -> int | None:
        found = self._held.find(delimiter, max(start, self._seen))
        if found >= 0:
            return found + len(delimiter)
        self._seen = max(start, len(self._held) - len(delimiter) + 1)
        return None

    def _tag_end(self, start: int) -> int | None:
        position = max(start + 1, self._seen)
        while found := (_IN_VALUE[self._quote] if self._quote else _IN_TAG).search(self._held, position):
            position = found.end()
            what = found.group()
            if what == b"<":
                return len(self._held)  # malformed
            if self._quote:
                self._quote = b""
            elif what == b">":
                return position
            else:
                self._quote = what
        self._seen = len(self._held)
        return None
