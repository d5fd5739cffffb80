"""One pool with very many items: starting, listing, memory."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.clients import make_items
from benchmarks.listing import check_count, list_long
from benchmarks.run import Run
from benchmarks.table import Goal, Row, Unit
from benchmarks.trees import ControlTree

_START = Goal(high=2.0)
_FIRST_LIST = Goal(high=2.5)
_NEXT_LIST = Goal(high=1.0)
_MEMORY = Goal(high=200e6)
#: Items made right before the daemon is killed, whose operations are the ones that it has to finish.
_LATE_ITEMS = 200


def measure_scale(run: Run) -> Iterator[Row]:
    """Making, then starting again after a clean stop, then after a kill; listing after each start."""
    count = run.effort.scale_items
    installation = run.install()
    tree = installation.start()
    with tree.server:
        tree.wait_until_mounted()
        tree.add_pool()
        (tree.pool() / "autostart").write_text("1\n")
        rate = count / make_items(tree.items(), prefix="item", count=count)
    yield Row(name=f"making {count:,} items, 8 clients", value=rate, unit=Unit.PER_SECOND)

    tree = installation.start()
    with tree.server:
        yield from _started(tree, "a clean stop", count)
        make_items(tree.items(), prefix="late", count=_LATE_ITEMS)
        tree.server.kill()

    tree = installation.start()
    with tree.server:
        yield from _started(tree, "kill -9", count + _LATE_ITEMS)

    with run.floor(items=count) as floor:
        for name in ("first", "next"):
            seconds = list_long(floor.items())
            yield Row(name=f"{name} ls -ln of {count:,} items: null tree", value=seconds, unit=Unit.SECONDS)


def _started(tree: ControlTree, after: str, count: int) -> Iterator[Row]:
    """What a start over `count` items took until now, and what follows it."""

    def row(name: str, value: float, goal: Goal, unit: Unit = Unit.SECONDS) -> Row:
        return Row(name=f"{name}, {count:,} items, after {after}", value=value, unit=unit, goal=goal)

    yield row("start until active", tree.wait_until_active(), _START)
    yield row("first ls -ln", list_long(tree.items()), _FIRST_LIST)
    yield row("next ls -ln", list_long(tree.items()), _NEXT_LIST)
    yield row("resident memory", tree.server.resident_bytes(), _MEMORY, Unit.BYTES)
    check_count(tree.items(), count)
