"""What it costs to make or to delete something, beside the parts that such an operation is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.sampling import Contender
from benchmarks.storage import APPEND, CREATE, BareStorage
from benchmarks.table import Goal, Row, Unit

SUBJECT = "fspoolfs"
NULL = "the same in the null tree"
_TWICE_THE_FLOOR = Goal(high=2.0)


def synced_writes(storage: BareStorage, series: str) -> tuple[Contender, Contender]:
    """Both forms of one synced write; `series` keeps the new files of two measurements apart."""
    return (
        Contender(name=APPEND, act=storage.append),
        Contender(name=CREATE, act=lambda turn: storage.create(turn, series=series)),
    )


def row(name: str, value: float, against: str, reference: float, goal: Goal | None = None) -> Row:
    """Seconds beside seconds."""
    return Row(name=name, value=value, unit=Unit.SECONDS, against=against, reference=reference, goal=goal)


def beside_floor(name: str, medians: Mapping[str, float], *, bare: str) -> Iterator[Row]:
    """`SUBJECT` beside `NULL`, the bare calls and one synced write, whose cheaper form sets the goal."""
    calls = medians[NULL] + medians[bare]
    cheap, dear = sorted((APPEND, CREATE), key=lambda form: medians[form])
    value = medians[SUBJECT]
    yield row(name, value, f"floor: null tree + {bare} + {cheap}", calls + medians[cheap], _TWICE_THE_FLOOR)
    yield row(name, value, f"the same with a {dear}", calls + medians[dear])
    for part in (NULL, bare, APPEND, CREATE):
        yield Row(name=f"- {part}", value=medians[part], unit=Unit.SECONDS)
