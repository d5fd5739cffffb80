"""Rows of the result and how they are shown: as a table for a person, as JSON for a program."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass


class Unit(enum.Enum):
    """What a row's numbers are."""

    SECONDS = "s"
    PER_SECOND = "1/s"
    BYTES = "B"
    BYTES_PER_SECOND = "B/s"
    COUNT = "1"

    def show(self, value: float) -> str:
        match self:
            case Unit.SECONDS if value < 0.9995e-3:
                return f"{value * 1e6:.0f} µs"
            case Unit.SECONDS if value < 1:
                return f"{value * 1e3:.2f} ms"
            case Unit.SECONDS:
                return f"{value:.2f} s"
            case Unit.PER_SECOND:
                return f"{value:,.0f} /s"
            case Unit.COUNT:
                return f"{value:,.0f}"
            case Unit.BYTES:
                return f"{value / 1e6:,.1f} MB"
            case Unit.BYTES_PER_SECOND:
                return f"{value / 1e6:,.1f} MB/s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A bound that is to be kept: by the ratio where a row has a reference, else by its value."""

    low: float = -math.inf
    high: float = math.inf

    def reached(self, number: float) -> bool:
        return self.low <= number <= self.high

    def show(self, text: Callable[[float], str]) -> str:
        """As "≤ 2.00 ×"; `text` shows a bound."""
        bounds = (("≥", self.low), ("≤", self.high))
        return ", ".join(f"{sign} {text(bound)}" for sign, bound in bounds if math.isfinite(bound))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured thing, beside what it is compared with, if anything; without a goal it only informs."""

    name: str
    value: float
    unit: Unit
    against: str = ""
    reference: float | None = None
    goal: Goal | None = None

    @property
    def ratio(self) -> float | None:
        return None if self.reference is None else self.value / self.reference

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; `None` without one."""
        if self.goal is None:
            return None
        ratio = self.ratio
        return self.goal.reached(self.value if ratio is None else ratio)

    @property
    def goal_text(self) -> str:
        if self.goal is None:
            return ""
        return self.goal.show(self.unit.show if self.reference is None else _times)

    def cells(self) -> tuple[str, ...]:
        ratio = self.ratio
        verdicts = {True: "yes", False: "NO", None: ""}
        return (
            self.name,
            self.unit.show(self.value),
            "" if self.reference is None else self.unit.show(self.reference),
            "" if ratio is None else _times(ratio),
            self.goal_text,
            verdicts[self.reached],
            self.against,
        )

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit.value,
            "against": self.against,
            "reference": self.reference,
            "ratio": self.ratio,
            "goal": self.goal_text,
            "reached": self.reached,
        }


def _times(ratio: float) -> str:
    return f"{ratio:.2f} ×"


@dataclass(frozen=True, slots=True)
class Section:
    """The rows of one measurement; `failure` says why there are no more of them."""

    name: str
    rows: Sequence[Row]
    failure: str = ""

    @property
    def good(self) -> bool:
        return not self.failure and all(row.reached is not False for row in self.rows)


_HEADINGS = ("", "measured", "reference", "ratio", "goal", "reached", "the reference is")
_RIGHT = frozenset({1, 2, 3, 4})


def render(facts: Mapping[str, str], sections: Iterable[Section]) -> str:
    """The whole result as text: the machine's facts, then one aligned table."""
    lines = [f"{key}: {value}" for key, value in facts.items()]
    sections = list(sections)
    table = [_HEADINGS, *(row.cells() for section in sections for row in section.rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines += ["", _line(_HEADINGS, widths), "  ".join("-" * width for width in widths)]
    for section in sections:
        lines.append(f"[{section.name}]")
        lines += [_line(row.cells(), widths) for row in section.rows]
        if section.failure:
            lines.append(f"FAILED: {section.failure}")
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        cell.rjust(width) if place in _RIGHT else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(padded).rstrip()
