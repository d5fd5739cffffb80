"""Clients that make, rename and delete items of a pool, and remember what they were told."""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.wait import eventually

#: How requests end that go on, or whose pool is stalled.
_LATE = (errno.EINPROGRESS, errno.ETIMEDOUT)


@dataclass
class Work:
    """What one client does to a pool, and what it was told: operations without an answer are `doubtful`."""

    pool: Path
    prefix: str
    #: Whether it also writes into the items, which hangs with their server.
    writes: bool = True
    #: Whether it goes on after what a busy server did not do in time; what became of that is doubtful.
    patient: bool = False
    there: set[str] = field(default_factory=set)
    trashed: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    done: int = 0
    error: OSError | None = None

    def run(self, ending: threading.Event) -> None:
        chance = random.Random(self.prefix)
        number = 0
        while not ending.is_set():
            kind = chance.choice(("create", "create", "rename", "delete"))
            if kind == "create" or not self.there:
                number += 1
                names = [f"{self.prefix}{number}"]
            else:
                names = [chance.choice(sorted(self.there)), f"{self.prefix}{number}r{self.done}"]
            try:
                self._do(kind if self.there else "create", names)
            except OSError as error:
                self.doubtful |= set(names)
                if not (self.patient and error.errno in _LATE):
                    self.error = error
                    return
                self.there -= set(names)
            self.done += 1

    def _do(self, kind: str, names: list[str]) -> None:
        place = self.pool / "items"
        if kind == "create":
            (place / names[0]).mkdir()
            if self.writes:
                (place / names[0] / "data/proof").write_text(names[0])
            self.there.add(names[0])
        elif kind == "rename":
            (place / names[0]).rename(place / names[1])
            self.there.remove(names[0])
            self.there.add(names[1])
        else:
            (place / names[0]).rmdir()
            self.there.remove(names[0])
            self.trashed.add(names[0])


@contextmanager
def working(*works: Work) -> Iterator[threading.Event]:
    ending = threading.Event()
    threads = [threading.Thread(target=work.run, args=(ending,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield ending
    finally:
        ending.set()
        for thread in threads:
            thread.join()


def await_work(*works: Work, more_than: int, timeout: float) -> None:
    """Wait until each has done so much; `AssertionError` as soon as one of them has failed."""

    def enough() -> bool:
        assert [work.error for work in works] == [None] * len(works)
        return min(work.done for work in works) > more_than

    eventually(enough, what=f"each has done more than {more_than} operations", timeout=timeout)
