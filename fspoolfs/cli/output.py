"""What commands print: tables and "key: value" lines for people, JSON for programs.

Ten thousand rows are printed in a moment, which is why no library lays out the columns.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import click

#: The words for states that are worth a colour on a terminal.
_COLOURS: Final[Mapping[str, str]] = {
    "active": "green",
    "ready": "green",
    "inactive": "bright_black",
    "failed": "red",
    "missing": "red",
    "stalled": "yellow",
}
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_GAP: Final = "   "

Row = Sequence[str]


def size(count: int | None, *, exact: bool = False, none: str = "-") -> str:
    """A number of bytes, with two digits and a unit as virsh prints it, or `exact`, in bytes."""
    if count is None:
        return none
    if exact:
        return str(count)
    amount, unit = float(count), 0
    while amount >= 1024 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.2f} {_UNITS[unit]}" if unit else f"{count} B"


def show_table(titles: Row, rows: Sequence[Row], *, right: Sequence[str] = ()) -> None:
    """Print rows under their titles; the columns called in `right` are numbers."""
    widths = [max(map(_width, column)) for column in zip(titles, *rows, strict=True)]
    aligned = [title in right for title in titles]
    lines = [_line(titles, widths, aligned), "-" * (sum(widths) + len(_GAP) * (len(widths) - 1) + 2)]
    lines += [_line(row, widths, aligned, coloured=True) for row in rows]
    click.echo("\n".join(lines))


def show_json(value: object) -> None:
    """Print one JSON document; names that are not ASCII stand as they are."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_names(names: Iterable[str]) -> None:
    """Print one name a line, for programs that read lines."""
    click.echo("".join(f"{name}\n" for name in names), nl=False)


def wants_colour() -> bool | None:
    """What click is told: never with NO_COLOR (no-color.org), else on a terminal."""
    return False if os.environ.get("NO_COLOR") else None


def _line(row: Row, widths: Sequence[int], aligned: Sequence[bool], *, coloured: bool = False) -> str:
    cells = []
    for text, width, right in zip(row, widths, aligned, strict=True):
        blanks = " " * (width - _width(text))
        shown = click.style(text, fg=_COLOURS[text]) if coloured and text in _COLOURS else text
        cells.append(blanks + shown if right else shown + blanks)
    return f" {_GAP.join(cells)}".rstrip()


def _width(text: str) -> int:
    """The cells of a terminal that `text` takes."""
    if text.isascii():
        return len(text)
    from wcwidth import wcswidth

    width: int = wcswidth(text)
    return width if width >= 0 else len(text)


def pairs(text: str) -> dict[str, str]:
    """The "key: value" lines of an `info` or `features` file, with keys in lower case."""
    found = (line.partition(":") for line in text.splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in found}


def with_sizes(text: str, sizes: Mapping[str, str]) -> str:
    """The lines of an `info` file with the sizes that are known in bytes said in bytes."""
    lines = []
    for line in text.splitlines():
        key = line.partition(":")[0]
        known = sizes.get(key, "")
        lines.append(f"{key + ':':<16}{known}" if known.isdigit() else line)
    return "".join(f"{line}\n" for line in lines)
