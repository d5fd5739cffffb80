"""Many clients at once for a while: nothing unforeseen, nothing leaked, everything consistent at the end.

FSPOOLFS_SOAK_SECONDS sets how long it goes on; 20 seconds unless it is set.
"""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from mount.control import ControlTree, request, value
from support.daemon import Daemon
from support.needs import needs_fuse, needs_root
from support.trees import check_trash
from support.wait import eventually

pytestmark = [needs_root, needs_fuse, pytest.mark.required]

CLIENTS = 32
#: What all clients fight for.
SHARED = [f"shared{number}" for number in range(8)]
#: Whoever comes too late to a shared item learns one of these.
LATE = frozenset({errno.ENOENT, errno.EEXIST, errno.EBUSY, errno.ESTALE})
#: Bytes by which the daemon may have grown after the first seconds: until it keeps all the events that
#: it ever will, and what waits to be collected, it does grow.
GROWTH = 32 << 20
#: Seconds after which idle threads have ended: the committer's 15, and those of Trio's pool 10.
IDLE = 40.0


def soak_seconds() -> float:
    return float(os.environ.get("FSPOOLFS_SOAK_SECONDS", "20"))


@dataclass(frozen=True)
class Resources:
    """What a process holds."""

    descriptors: int
    threads: int
    memory: int

    @classmethod
    def of(cls, pid: int) -> Resources:
        status = Path(f"/proc/{pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines())
        return cls(
            descriptors=len(os.listdir(f"/proc/{pid}/fd")),
            threads=int(fields["Threads"]),
            memory=int(fields["VmRSS"].split()[0]) * 1024,
        )


class Client(threading.Thread):
    """Requests at random: on items of its own, which must all succeed, and on those of everybody."""

    def __init__(self, pools: list[Path], number: int, end: float, seed: int) -> None:
        super().__init__(name=f"client{number}", daemon=True)
        self._random = random.Random(f"{seed}-{number}")
        self._pools = pools
        self._pool = pools[number % len(pools)]
        self._end = end
        self._own: dict[str, str] = {}
        self._count = 0
        self.requests: Counter[str] = Counter()
        self.unforeseen: list[str] = []

    @property
    def pool(self) -> Path:
        return self._pool

    @property
    def own(self) -> dict[str, str]:
        """The names of the items that must be there, with what is written in each."""
        return dict(self._own)

    def run(self) -> None:
        steps: list[Callable[[], None]] = [
            *(self._create, self._create, self._look, self._look, self._rename, self._remove),
            *(self._redefine, self._clone, self._come_back, self._list),
            *(self._fight, self._fight, self._fight, self._peek),
        ]
        while time.monotonic() < self._end:
            step = self._random.choice(steps)
            try:
                step()
            except (OSError, AssertionError) as error:
                self.unforeseen.append(f"{self.name}: {step.__name__}: {error!r}")
                return

    # -- its own items: everything succeeds -------------------------------------------------------

    def _item(self, name: str) -> Path:
        return self._pool / "items" / name

    def _new_name(self) -> str:
        self._count += 1
        return f"{self.name}-{self._count}"

    def _pick(self) -> str | None:
        return self._random.choice(list(self._own)) if self._own else None

    def _create(self) -> None:
        if len(self._own) > 20:
            self._remove()
            return
        name = self._new_name()
        self._item(name).mkdir()
        (self._item(name) / "data" / "file").write_text(name)
        self._own[name] = name
        self.requests["create"] += 1

    def _look(self) -> None:
        name = self._pick()
        if name is not None:
            item = self._item(name)
            assert (item / "data" / "file").read_text() == self._own[name]
            assert value(item / "status") == "ready"
            assert f"<name>{name}</name>" in (item / "config.xml").read_text()
            assert (item / "info").read_text().startswith("Name:")
            self.requests["look"] += 1

    def _rename(self) -> None:
        name = self._pick()
        if name is not None:
            new = self._new_name()
            self._item(name).rename(self._item(new))
            self._own[new] = self._own.pop(name)
            assert not self._item(name).exists()
            self.requests["rename"] += 1

    def _remove(self) -> None:
        name = self._pick()
        if name is not None:
            self._item(name).rmdir()
            del self._own[name]
            assert not self._item(name).exists()
            (self._pool / "trash" / name).rmdir()
            self.requests["remove"] += 1

    def _come_back(self) -> None:
        name = self._pick()
        if name is not None:
            self._item(name).rmdir()
            (self._pool / "trash" / name).rename(self._item(name))
            self.requests["undelete"] += 1

    def _redefine(self) -> None:
        name = self._pick()
        if name is not None:
            mode = self._random.choice(["0700", "0711", "0755"])
            document = f"<fs><name>{name}</name><permissions><mode>{mode}</mode></permissions></fs>"
            request(self._item(name) / "config.xml", document)
            assert f"{self._item(name).stat().st_mode & 0o7777:04o}" == mode
            self.requests["redefine"] += 1

    def _clone(self) -> None:
        name = self._pick()
        if name is not None and len(self._own) < 20:
            new = self._new_name()
            request(self._item(name) / "status", f"clone {new}")
            self._own[new] = self._own[name]
            self.requests["clone"] += 1

    def _list(self) -> None:
        assert set(self._own) <= set(os.listdir(self._pool / "items"))
        self.requests["list"] += 1

    # -- shared items: whoever comes too late is told so ------------------------------------------

    def _fight(self) -> None:
        pool = self._random.choice(self._pools)
        name, new = self._random.choice(SHARED), self._random.choice(SHARED)
        acts: list[Callable[[], object]] = [
            (pool / "items" / name).mkdir,
            (pool / "items" / name).rmdir,
            (pool / "trash" / name).rmdir,
            lambda: (pool / "items" / name).rename(pool / "items" / new),
            lambda: (pool / "trash" / name).rename(pool / "items" / new),
            lambda: (pool / "items" / name).chmod(0o750),
            lambda: request(pool / "items" / name / "status", f"clone {new}"),
            lambda: request(pool / "items" / name / "status", "measure"),
            lambda: (pool / "items" / name / "config.xml").read_text(),
        ]
        try:
            self._random.choice(acts)()
            self.requests["won"] += 1
        except OSError as error:
            if error.errno not in LATE:
                raise
            self.requests["late"] += 1

    def _peek(self) -> None:
        mount = self._pools[0].parents[1]
        for file in ("metrics", "events", "features"):
            (mount / file).read_bytes()
        for pool in self._pools:
            assert value(pool / "status").startswith("active")
            assert (pool / "info").read_text()
        self.requests["peek"] += 1


def soak(pools: list[Path], seconds: float, seed: int) -> list[Client]:
    """Let all clients work; none may meet anything unforeseen."""
    end = time.monotonic() + seconds
    clients = [Client(pools, number, end, seed) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(seconds + 60)
        assert not client.is_alive(), f"{client.name} hangs"
    unforeseen = [line for client in clients for line in client.unforeseen]
    assert unforeseen == []
    return clients


def trashed(pool: Path) -> Iterator[Path]:
    yield from (pool / "trash").iterdir()


def check_consistent(daemon: Daemon, pool: Path, clients: list[Client]) -> None:
    """What is shown, what is stored and what the clients believe are the same."""
    mine = [client for client in clients if client.pool == pool]
    owned = {name: text for client in mine for name, text in client.own.items()}
    shown = set(os.listdir(pool / "items"))
    assert {name for name in shown if name not in SHARED} == set(owned)
    for name, text in owned.items():
        assert (pool / "items" / name / "data" / "file").read_text() == text
    assert {value(pool / "items" / name / "status") for name in shown} <= {"ready"}
    uuids = [value(pool / "items" / name / "uuid") for name in shown]
    deleted = [value(entry / "uuid") for entry in trashed(pool)]
    assert len({*uuids, *deleted}) == len(uuids) + len(deleted)
    root = daemon.storage / "pools" / pool.name
    own = root / ".fspool"
    assert set(os.listdir(root)) == shown | {".fspool"}
    assert {name.removesuffix(".xml") for name in os.listdir(own / "items")} == shown
    check_trash(own / "trash", deleted)
    assert os.listdir(own / "staging") == []


def empty(pool: Path) -> None:
    for item in (pool / "items").iterdir():
        item.rmdir()
    for entry in trashed(pool):
        entry.rmdir()


def test_many_clients_leave_a_consistent_tree(daemon: Daemon) -> None:
    tree = ControlTree(daemon)
    pools = [tree.active_pool() for _ in range(2)]
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # pytest shows it with a failure
    clients = soak(pools, soak_seconds(), seed)
    done = sum((client.requests for client in clients), Counter[str]())
    print(dict(done))
    assert all(done[kind] > 0 for kind in ("create", "rename", "remove", "undelete", "clone", "won", "late"))
    for pool in pools:
        check_consistent(daemon, pool, clients)
    daemon.restart()
    for pool in pools:
        eventually(lambda: value(pool / "status") == "active", what="the pool is active again")  # noqa: B023
        check_consistent(daemon, pool, clients)


def test_many_clients_leave_nothing_in_the_daemon(daemon: Daemon) -> None:
    tree = ControlTree(daemon)
    pools = [tree.active_pool() for _ in range(2)]
    pid = daemon.process.pid
    idle = Resources.of(pid)
    seconds = soak_seconds() / 5
    soak(pools, seconds, 1)
    for pool in pools:
        empty(pool)
    warm = Resources.of(pid)
    for seed in (2, 3):
        soak(pools, seconds, seed)
        for pool in pools:
            empty(pool)
    after = Resources.of(pid)
    print(idle, warm, after)
    assert after.memory - warm.memory < GROWTH
    eventually(
        lambda: Resources.of(pid).descriptors <= idle.descriptors, what="no descriptor is left", timeout=IDLE
    )
    eventually(lambda: Resources.of(pid).threads <= idle.threads + 2, what="no thread is left", timeout=IDLE)


def test_open_files_of_many_clients_are_let_go(daemon: Daemon) -> None:
    tree = ControlTree(daemon)
    item = tree.new_item()
    before = Resources.of(daemon.process.pid)
    with ExitStack() as stack:
        for _ in range(50):
            for path in (item / "status", item / "config.xml", tree.mount / "events"):
                stack.enter_context(path.open("rb")).read(1)
        assert value(item / "status") == "ready"
    assert Resources.of(daemon.process.pid).descriptors <= before.descriptors + 1
