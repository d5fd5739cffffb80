"""Power cuts right after an operation has returned success, on real file systems.

What returned success must be there, and nothing half-made, when the storage comes back: a new daemon
finds only what had reached the disk.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from crashing import contract
from mount.control import request, value
from support.wait import eventually
from vm.disks import FailingDisk
from vm.operations import OPERATIONS, Operation, furnish, holds
from vm.preloaded import PreloadedDaemon

#: Seconds for a start that replays what was lost.
_PATIENCE = 300.0


class Disk(Protocol):
    """What loses power; state and storage are at `place`, on it or not."""

    place: Path

    def cut(self) -> None:
        """Lose whatever is written from now on."""

    def return_after_cut(self) -> None:
        """Throw away what only memory has, and bring back what is on the disk."""


class Place:
    """A disk with state and storage, and the daemon on it, one after the other."""

    def __init__(self, disk: Disk, base: Path) -> None:
        self.disk = disk
        self.daemon = PreloadedDaemon(base, disk.place)
        for directory in (self.daemon.state, self.daemon.storage):
            directory.mkdir()
        self.daemon.start()
        self._log_read = 0

    @property
    def pool(self) -> Path:
        return self.daemon.mount / "pools" / "tank"

    def begin(self) -> None:
        """A pool with two items, whatever was there before."""
        if self.pool.exists():
            for item in os.listdir(self.pool / "items"):
                (self.pool / "items" / item).rmdir()
            for entry in os.listdir(self.pool / "trash"):
                (self.pool / "trash" / entry).rmdir()
        else:
            self.define()
            request(self.pool / "status", "start build")
        for name in ("web", "db"):
            furnish(self.pool, name)

    def define(self) -> None:
        self.pool.mkdir()

    def lose_power(self) -> None:
        """What has not reached the disk is lost; then a new daemon runs."""
        self.disk.cut()
        self.daemon.kill()
        self.disk.return_after_cut()
        # Where the power is really cut, a boot follows: which pools were active means nothing then.
        for marker in (self.daemon.state / "active").iterdir():
            marker.unlink()
        self.daemon.start()
        self._start()
        contract.settle(self.daemon.mount)

    def _start(self) -> None:
        """However long it takes: what is emulated may be slow, and beginning again would not be quicker."""
        try:
            request(self.pool / "status", "start")
        except OSError as error:
            if error.errno != errno.EINPROGRESS:
                raise
            eventually(
                lambda: value(self.pool / "status").split()[0] != "starting",
                what="the pool has started",
                timeout=_PATIENCE,
            )

    def violations(self) -> list[str]:
        log = self.daemon.log
        new, self._log_read = log[self._log_read :], len(log)
        return contract.violations(self.daemon.mount, self.daemon.state, frozenset(("customers",)), new)


def survives(place: Place, operation: Operation) -> None:
    """What has returned success is there after a power cut, and all else that was."""
    place.begin()
    operation.prepare(place.pool)
    operation.operate(place.pool)
    place.lose_power()
    assert value(place.pool / "status").split()[0] == "active"  # and perhaps purging
    operation.check(place.pool)
    assert holds(place.pool / "items" / "db")
    assert place.violations() == []


def loses_what_was_not_synced(place: Place) -> None:
    """Or what survives would prove nothing."""
    place.begin()
    (place.pool / "items" / "web" / "data" / "unsynced").write_bytes(b"lost")
    place.lose_power()
    assert not (place.pool / "items" / "web" / "data" / "unsynced").exists()
    assert holds(place.pool / "items" / "web")


FORMATS = ("ext4", "xfs", "btrfs")
#: The first at every run, the others with `-m long`. The same places in all lists, so that disks are shared.
MOSTLY_FIRST = [FORMATS[0], *(pytest.param(format, marks=pytest.mark.long) for format in FORMATS[1:])]


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(FailingDisk(request.param), tmp_path_factory.mktemp("power"))
    yield made
    made.daemon.close()


@pytest.mark.parametrize("place", MOSTLY_FIRST, indirect=True)
@pytest.mark.parametrize(
    "operation",
    [operation for operation in OPERATIONS if not operation.own_ways],
    ids=lambda operation: operation.name,
)
def test_what_all_do_alike_is_there_after_a_power_cut(place: Place, operation: Operation) -> None:
    survives(place, operation)


@pytest.mark.parametrize("place", FORMATS, indirect=True)
@pytest.mark.parametrize(
    "operation",
    [operation for operation in OPERATIONS if operation.own_ways],
    ids=lambda operation: operation.name,
)
def test_what_each_does_in_its_way_is_there_after_a_power_cut(place: Place, operation: Operation) -> None:
    survives(place, operation)


@pytest.mark.parametrize("place", FORMATS, indirect=True)
def test_power_is_really_cut(place: Place) -> None:
    loses_what_was_not_synced(place)
