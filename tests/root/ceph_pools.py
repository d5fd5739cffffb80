"""Pools on CephFS for tests: a daemon, a pool on a directory of a cluster, looks at what is stored there."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from mount.control import last_error, request, value
from support.ceph import Cluster, mounted
from support.daemon import Daemon
from support.wait import eventually

#: Seconds for what waits for servers on a busy machine.
LONG = 120.0


@dataclass
class Stage:
    """An active pool `tank` of a daemon, by credentials that are confined to it."""

    cluster: Cluster
    daemon: Daemon
    #: The pool's directory in the file system.
    exported: str

    @property
    def pool(self) -> Path:
        return self.daemon.mount / "pools" / "tank"

    @property
    def root(self) -> Path:
        return Path(os.readlink(self.pool / "root"))

    def item(self, name: str) -> Path:
        return self.pool / "items" / name

    def new_item(self, name: str, text: str = "first") -> Path:
        """An item with one file."""
        self.item(name).mkdir()
        (self.item(name) / "data/file").write_text(text)
        return self.item(name)

    def snapshot(self, item: str, name: str) -> Path:
        made = self.item(item) / "snapshots" / name
        made.mkdir()
        return made

    def leftovers(self) -> set[str]:
        """What is kept of items and snapshots that are gone."""
        own = self.root / ".fspool"
        found = {
            str(path.relative_to(own)) for place in ("purge", "staging") for path in (own / place).iterdir()
        }
        for place in ("snapshots", "ceph"):
            if (own / place).is_dir():
                found |= {str(path.relative_to(own)) for path in (own / place).iterdir()}
        return found

    @contextmanager
    def elsewhere(self) -> Iterator[Path]:
        """The pool's directory as another client sees it."""
        with mounted(self.cluster, self.daemon.base / "elsewhere", self.exported) as place:
            yield place


def define(
    cluster: Cluster, daemon: Daemon, *, granted: str = "rwps", more: str = "<trash retention='none'/>"
) -> Stage:
    """An inactive pool on a new directory that is handed out to it."""
    client, exported = f"t{uuid4().hex[:8]}", f"/pools/{uuid4()}"
    cluster.confine(client, exported, granted)
    request(
        daemon.mount / "define",
        f"<fspool type='network'><name>tank</name>{cluster.source(exported, client=client)}{more}</fspool>",
    )
    return Stage(cluster, daemon, exported)


def do(pool: Path, verb: str) -> None:
    """Ask for a verb and wait for its end, however long it takes."""
    try:
        request(pool / "status", verb)
    except OSError as error:
        if error.errno not in (errno.EINPROGRESS, errno.ETIMEDOUT):
            raise
        ended = ("done", "failed")
        eventually(
            lambda: (pool / "job").read_text().startswith(ended), what=f"{verb} has ended", timeout=LONG
        )
        assert not last_error(pool), last_error(pool)


def becomes(pool: Path, *states: str) -> None:
    eventually(
        lambda: value(pool / "status").split()[0] in states, what=f"the pool is {states}", timeout=LONG
    )


def features(pool: Path) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in (pool / "features").read_text().splitlines())
