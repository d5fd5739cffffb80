"""Storage that exists in memory only, and can be told to fail, to hang and to crash.

`SimulatedHost` stands for a machine: trees by target path, and the faults of the daemon that works
on them. `killed` and `power_cut` give the machine that the next daemon finds. `SimulatedSource`
attaches its trees under the contract of every source. A daemon runs on it with `--sim`; the tests
of the service enumerate crashes with it.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import ClassVar

from fspoolfs.backends import directory, memory
from fspoolfs.backends import place as places
from fspoolfs.backends.memory import MemoryRoot, MemoryTree
from fspoolfs.backends.memory_tree import DEFAULT_CAPACITY
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.source import BuildMode
from fspoolfs.errors import FspoolError, NotFoundError
from fspoolfs.model.definitions import PoolDefinition, PoolType
from fspoolfs.progress import Progress

#: What `Faults` can be aimed at: the calls of roots and those of the source.
OPERATIONS = memory.OPERATIONS | {"build", "attach", "verify", "detach", "delete"}


class SimulatedCrash(BaseException):
    """The daemon is dead: nothing may catch this but the test that asked for it."""


class Hang:
    """Calls that wait until `release`, which leaving the context does too."""

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._released = threading.Event()

    def wait(self) -> None:
        """Called by the victim."""
        self._entered.set()
        self._released.wait()

    def wait_until_entered(self, timeout: float) -> bool:
        """Whether a call hangs, waiting at most `timeout` seconds for one."""
        return self._entered.wait(timeout)

    @property
    def released(self) -> bool:
        return self._released.is_set()

    def release(self) -> None:
        """Let all calls go on, and those that come."""
        self._released.set()

    def __enter__(self) -> Hang:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


@dataclass(slots=True)
class _Failure:
    """`after` and `times` are counted down by the calls that it matches."""

    operation: str
    path: str | None
    number: int
    after: int
    times: int | None

    def strikes(self, operation: str, path: str) -> bool:
        if operation != self.operation or self.path not in (None, path) or self.times == 0:
            return False
        if self.after:
            self.after -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Faults:
    """What goes wrong, and when. Thread-safe; an `Interceptor` of roots and of the source."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures: list[_Failure] = []
        self._hangs: list[tuple[str, str | None, Hang]] = []
        self._mutations = 0
        self._crash_number = 0
        self._crash_after = False
        self._crashed = False

    @property
    def mutations(self) -> int:
        """How many atomic changes have begun: the number of places to crash at."""
        with self._lock:
            return self._mutations

    @property
    def crashed(self) -> bool:
        with self._lock:
            return self._crashed

    def fail(
        self,
        operation: str,
        number: int,
        *,
        path: str | None = None,
        after: int = 0,
        times: int | None = 1,
    ) -> None:
        """Let calls of `operation` fail with errno `number`, before they change anything.

        Only those on `path` where it is given; the first `after` of them succeed, `times` fail
        (`None`: all), and then they succeed again.
        """
        failing = _Failure(_known(operation), path, number, after, times)
        with self._lock:
            self._failures.append(failing)

    def hang(self, operation: str, *, path: str | None = None) -> Hang:
        """Let calls of `operation` wait until the handle is released."""
        hang = Hang()
        with self._lock:
            self._hangs.append((_known(operation), path, hang))
        return hang

    def crash_at(self, number: int, *, after: bool = False) -> None:
        """Crash at the `number`-th atomic change from now, counted from 1: before, or `after` it.

        From then on every call raises `SimulatedCrash`.
        """
        if number < 1:
            raise ValueError(f"changes are counted from 1, not {number}")
        with self._lock:
            self._crash_number = self._mutations + number
            self._crash_after = after

    def crash(self) -> None:
        """Crash now."""
        with self._lock:
            self._crashed = True

    def enter(self, operation: str, path: str) -> None:
        """See `fspoolfs.backends.memory.Interceptor`."""
        for hang in self._hangs_for(operation, path):
            hang.wait()
        with self._lock:
            if self._crashed:
                raise SimulatedCrash
            for failing in self._failures:
                if failing.strikes(operation, path):
                    raise OSError(failing.number, os.strerror(failing.number), path)

    @contextmanager
    def change(self) -> Iterator[None]:
        """See `fspoolfs.backends.memory.Interceptor`."""
        if self._begin_change():
            try:
                yield
            finally:
                # Even when the change failed: the daemon never learns.
                self.crash()
                raise SimulatedCrash
        else:
            yield

    def _begin_change(self) -> bool:
        """Whether the crash comes after this change."""
        with self._lock:
            if self._crashed:
                raise SimulatedCrash
            self._mutations += 1
            if self._mutations != self._crash_number:
                return False
            if not self._crash_after:
                self._crashed = True
                raise SimulatedCrash
            return True

    def _hangs_for(self, operation: str, path: str) -> list[Hang]:
        with self._lock:
            if self._crashed:
                raise SimulatedCrash
            self._hangs = [one for one in self._hangs if not one[2].released]
            return [
                hang
                for its_operation, its_path, hang in self._hangs
                if its_operation == operation and its_path in (None, path)
            ]


def _known(operation: str) -> str:
    if operation not in OPERATIONS:
        raise ValueError(f"there is no operation {operation!r}")
    return operation


@dataclass(slots=True)
class SimulatedHost:
    """A machine: its directories by path, in memory, and what goes wrong on it.

    `capacity` is what each tree gets, in bytes.
    """

    capacity: int = DEFAULT_CAPACITY
    faults: Faults = field(default_factory=Faults)
    trees: dict[str, MemoryTree] = field(default_factory=dict)

    def killed(self) -> SimulatedHost:
        """What is found after the daemon was killed now: all that it had done, durable or not."""
        self.faults.crash()
        return SimulatedHost(capacity=self.capacity, trees=dict(self.trees))

    def power_cut(self, keep: random.Random | None = None) -> SimulatedHost:
        """What is found after the power failed now; see `MemoryTree.power_cut`."""
        self.faults.crash()
        survivors = {path: tree.power_cut(keep) for path, tree in self.trees.items()}
        return SimulatedHost(capacity=self.capacity, trees=survivors)

    def change(self, operation: str, path: str) -> AbstractContextManager[None]:
        """A call of the source that is one atomic change."""
        self.faults.enter(operation, path)
        return self.faults.change()


class SimulatedSource:
    """Directory pools on a `SimulatedHost`."""

    type: ClassVar[PoolType] = PoolType.DIR
    format: ClassVar[str] = ""

    def __init__(self, host: SimulatedHost) -> None:
        self._host = host

    def unusable(self) -> str:
        return ""

    def check(self, definition: PoolDefinition) -> None:
        directory.check_plain(definition)

    def identity(self, definition: PoolDefinition) -> str:
        return f"sim:{self._place(definition)}"

    def build(self, definition: PoolDefinition, mode: BuildMode, progress: Progress) -> None:
        """Make the tree; what is there is kept in both modes, as a directory is."""
        place = self._place(definition)
        with self._host.change("build", place):
            self._host.trees.setdefault(place, MemoryTree(capacity=self._host.capacity))

    def attach(self, definition: PoolDefinition, progress: Progress) -> RootDirectory:
        place = self._place(definition)
        self._host.faults.enter("attach", place)
        tree = self._host.trees.get(place)
        if tree is None:
            raise NotFoundError(
                f"pool {definition.name}: {place} does not exist in the simulator; build the pool first"
            )
        return MemoryRoot(tree, place, interceptor=self._host.faults)

    def verify(self, definition: PoolDefinition, root: RootDirectory) -> None:
        place = self._place(definition)
        self._host.faults.enter("verify", place)
        if not isinstance(root, MemoryRoot):
            raise TypeError(f"{root!r} was not attached by the simulator")
        if self._host.trees.get(place) is not root.tree:
            raise FspoolError(
                f"pool {definition.name}: {place} is no longer what was attached; stop the pool, put its "
                "storage back and start it again",
                errno=errno.ESTALE,
            )

    def detach(self, definition: PoolDefinition, *, force: bool) -> None:
        """Nothing is held while attached."""
        self._host.faults.enter("detach", self._place(definition))

    def delete(self, definition: PoolDefinition) -> None:
        place = self._place(definition)
        with self._host.change("delete", place):
            tree = self._host.trees.get(place)
            if tree is not None:
                places.refuse_leftovers(definition, MemoryRoot(tree, place))
                del self._host.trees[place]

    def _place(self, definition: PoolDefinition) -> str:
        return os.path.normpath(places.target_of(definition))
