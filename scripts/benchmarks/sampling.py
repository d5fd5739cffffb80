"""Timing of things in turns, so that noise falls on all of them alike. Times are seconds."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


def _nothing(turn: int) -> None:
    """What a contender does that needs no preparation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One thing to time. `act` is timed; `prepare` comes before it and is not. Both get the turn's number."""

    name: str
    act: Callable[[int], object]
    prepare: Callable[[int], object] = _nothing


def interleave(contenders: Sequence[Contender], *, turns: int) -> dict[str, float]:
    """The median seconds of each contender by name, after `turns` turns of all of them.

    Every turn begins with another one, so that none always follows the same neighbour. Turns are
    numbered from 0; an uncounted turn -1 warms caches.
    """
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    with _no_collection():
        for turn in range(-1, turns):
            shift = turn % len(contenders)
            for contender in (*contenders[shift:], *contenders[:shift]):
                contender.prepare(turn)
                began = time.perf_counter()
                contender.act(turn)
                took = time.perf_counter() - began
                if turn >= 0:
                    times[contender.name].append(took)
    return {name: statistics.median(taken) for name, taken in times.items()}


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector out of the timed part."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
