"""What it costs to read: one status file, and a long listing of many items."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

from benchmarks.clients import make_items
from benchmarks.listing import check_count, forget_entries, list_long
from benchmarks.peer import Lister
from benchmarks.run import Run
from benchmarks.sampling import Contender, interleave
from benchmarks.table import Goal, Row, Unit
from benchmarks.trees import cat

_SUBJECT, _FLOOR = "fspoolfs", "null tree"
_NEAR_THE_FLOOR = Goal(high=1.5)
_TEN_TIMES_FASTER = Goal(high=0.1)


def measure_status(run: Run) -> Iterator[Row]:
    """cat of a pool's status."""
    with run.subject() as subject, run.floor() as floor:
        paths = {_SUBJECT: subject.status(), _FLOOR: floor.status()}
        medians = interleave([_reader(*pair) for pair in paths.items()], turns=run.effort.status_turns)
    yield Row(
        name="cat status",
        value=medians[_SUBJECT],
        unit=Unit.SECONDS,
        against=_FLOOR,
        reference=medians[_FLOOR],
        goal=_NEAR_THE_FLOOR,
    )


def _reader(name: str, path: str) -> Contender:
    return Contender(name=name, act=lambda turn: cat(path))


def measure_list(run: Run) -> Iterator[Row]:
    """ls -ln of many items, with none and with all of them in the kernel's caches."""
    count, turns = run.effort.list_items, run.effort.list_turns
    with ExitStack() as stack:
        subject = stack.enter_context(run.subject())
        floor = stack.enter_context(run.floor(items=count))
        listers = [stack.enter_context(start(run.scratch)) for start in run.listers]
        make_items(subject.items(), prefix="item", count=count)
        for lister in listers:
            for number in range(count):
                lister.create(f"item{number}")
        empty = run.scratch.directory("empty")

        def cool(turn: int) -> None:
            forget_entries((subject, floor), warm=empty)

        subject_ls = Contender(name=_SUBJECT, act=lambda turn: list_long(subject.items()))
        floor_ls = Contender(name=_FLOOR, act=lambda turn: list_long(floor.items()))
        cold_ls = [replace(contender, prepare=cool) for contender in (subject_ls, floor_ls)]
        cold = interleave([*cold_ls, *map(_listing, listers)], turns=turns)
        warm = interleave([subject_ls, floor_ls], turns=turns)
        check_count(subject.items(), count)

    def row(name: str, value: float, against: str, reference: float, goal: Goal | None) -> Row:
        return Row(
            name=f"{name} ls -ln of {count:,} items",
            value=value,
            unit=Unit.SECONDS,
            against=against,
            reference=reference,
            goal=goal,
        )

    yield row("first", cold[_SUBJECT], _FLOOR, cold[_FLOOR], _NEAR_THE_FLOOR)
    for lister in listers:
        against = f"{lister.name}, list with info"
        yield row("first", cold[_SUBJECT], against, cold[lister.name], _TEN_TIMES_FASTER)
    yield row("next", warm[_SUBJECT], _FLOOR, warm[_FLOOR], None)


def _listing(lister: Lister) -> Contender:
    return Contender(name=lister.name, act=lambda turn: lister.list_with_info())
