"""A manual page in the macros of man(7)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fspoolfs import __version__

_SPECIAL = str.maketrans({"\\": r"\e", "-": r"\-", "'": r"\(aq", "^": r"\(ha", "~": r"\(ti", "`": r"\(ga"})
_NOT_ASCII = re.compile(r"[^\0-\x7f]")


def escape(text: str) -> str:
    """`text` as it is to be seen."""
    special = text.translate(_SPECIAL)
    special = _NOT_ASCII.sub(lambda match: f"\\[u{ord(match[0]):04X}]", special)
    # A dot at the beginning would make it a request.
    return f"\\&{special}" if special.startswith(".") else special


class Page:
    """One page, made from top to bottom; everything that is given is plain text."""

    def __init__(self, name: str, section: int, title: str) -> None:
        self.name = name
        self.section = section
        self._lines = [
            f'.TH {escape(name.upper())} {section} "" "fspoolfs {__version__}" "fspoolfs"',
            ".nh",
            ".ad l",
            ".SH NAME",
            f"{escape(name)} \\- {escape(title)}",
        ]

    def heading(self, text: str) -> None:
        self._lines.append(f'.SH "{escape(text)}"')

    def subheading(self, text: str) -> None:
        self._lines.append(f'.SS "{escape(text)}"')

    def paragraph(self, text: str) -> None:
        """Lines are filled; an empty one begins a new paragraph."""
        for piece in re.split(r"\n\s*\n", text.strip()):
            self._lines += [".PP", *(escape(line.strip()) for line in piece.splitlines())]

    def verbatim(self, text: str) -> None:
        """Lines stay as they are."""
        self._lines += [
            ".PP",
            ".RS 4",
            ".nf",
            *(escape(line) or "\\&" for line in text.splitlines()),
            ".fi",
            ".RE",
        ]

    def entry(self, term: str, text: str) -> None:
        """What `term`, in bold, means."""
        self._lines += [".TP", f"\\fB{escape(term)}\\fR", escape(" ".join(text.split())) or "\\&"]

    def see_also(self, pages: Iterable[str]) -> None:
        self.heading("SEE ALSO")
        self.paragraph(", ".join(pages))

    def text(self) -> str:
        return "\n".join([*self._lines, ""])
