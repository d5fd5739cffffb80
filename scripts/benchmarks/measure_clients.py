"""How many items a second many clients make at once, in many pools and in one."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.clients import maker, wall_seconds
from benchmarks.run import Run
from benchmarks.table import Goal, Row, Unit
from benchmarks.trees import POOL, ControlTree

_CLIENTS = 16
#: One client alone makes more in a turn than each of many, so that its turn is not over at once.
_ALONE_FACTOR = 4

_ONE, _MANY_POOLS, _ONE_POOL = "one client", "16 clients in 16 pools", "16 clients in one pool"
_GOALS = {_MANY_POOLS: Goal(low=3.0), _ONE_POOL: Goal(low=1.0)}
_SUBJECT, _FLOOR = "fspoolfs", "null tree"


def measure_clients(run: Run) -> Iterator[Row]:
    """Rates of many clients against the rate of one; the null tree shows what pyfuse3 itself allows here."""
    rates: dict[tuple[str, str], list[float]] = defaultdict(list)
    with run.subject() as subject, run.floor() as floor:
        trees = {_SUBJECT: subject, _FLOOR: floor}
        for number in range(_CLIENTS):
            for tree in trees.values():
                tree.add_pool(f"pool{number}")
        for turn in range(run.effort.client_turns):
            for shape, jobs in _SHAPES.items():
                for name, tree in trees.items():
                    rates[name, shape].append(jobs(tree, turn, run.effort.items_per_client))
    medians = {key: statistics.median(taken) for key, taken in rates.items()}
    for name in trees:
        yield Row(name=f"items made by {_ONE}: {name}", value=medians[name, _ONE], unit=Unit.PER_SECOND)
        for shape, goal in _GOALS.items():
            yield Row(
                name=f"items made by {shape}: {name}",
                value=medians[name, shape],
                unit=Unit.PER_SECOND,
                against=_ONE,
                reference=medians[name, _ONE],
                goal=goal if name == _SUBJECT else None,
            )


def _alone(tree: ControlTree, turn: int, count: int) -> float:
    count *= _ALONE_FACTOR
    return _rate([tree.items(POOL)], prefix=f"alone{turn}-", count=count)


def _in_many_pools(tree: ControlTree, turn: int, count: int) -> float:
    places = [tree.items(f"pool{number}") for number in range(_CLIENTS)]
    return _rate(places, prefix=f"many{turn}-", count=count)


def _in_one_pool(tree: ControlTree, turn: int, count: int) -> float:
    return _rate([tree.items(POOL)] * _CLIENTS, prefix=f"one{turn}-", count=count)


_SHAPES: dict[str, Callable[[ControlTree, int, int], float]] = {
    _ONE: _alone,
    _MANY_POOLS: _in_many_pools,
    _ONE_POOL: _in_one_pool,
}


def _rate(places: Sequence[Path], *, prefix: str, count: int) -> float:
    """Items a second that one client in each of `places` makes, `count` each."""
    jobs = [maker(place, prefix=f"{prefix}{client}-", count=count) for client, place in enumerate(places)]
    return len(places) * count / wall_seconds(jobs)
