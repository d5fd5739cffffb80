"""Pools on volumes: starting, stopping and building beside the bare programs, their data, many at once."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import btrfs
from benchmarks.beside_floor import SUBJECT, row
from benchmarks.measure_data import PATTERNS, compare
from benchmarks.run import Run
from benchmarks.sampling import Contender, interleave
from benchmarks.table import Goal, Row, Unit
from benchmarks.trees import ControlTree
from support import zfs

_NEAR_THE_CALLS = Goal(high=1.5)
_PARALLEL = Goal(high=3.0)
_BARE = "the bare programs"

#: Bytes of a volume, and of each of many; xfs makes none below 300 MiB.
_SIZE, _SMALL = 1 << 30, 64 << 20

#: How each format is made by hand, the way that pools are.
_MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-K", "-s", "size=4096"),
    "btrfs": ("mkfs.btrfs", "-q", "-f", "-K"),
}


@dataclass
class ByHand:
    """A file system in an image, formatted, attached and mounted by the programs of the host."""

    format: str
    image: Path
    place: Path
    direct_io: bool = True
    _device: str = field(default="", init=False)

    def make(self) -> None:
        """The image, and the file system on it by way of a loop device, which a pool's has as well."""
        with self.image.open("wb") as file:
            file.truncate(_SIZE)
        self._attach()
        _run(*_MAKE[self.format], self._device)
        _run("losetup", "--detach", self._device)
        self._switch_on_quotas()

    def _switch_on_quotas(self) -> None:
        """As a pool has them on btrfs, where they cost a part of each write."""
        if self.format != "btrfs":
            return
        self.mount()
        fd = os.open(self.place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            btrfs.enable_simple_quotas(fd)
        finally:
            os.close(fd)
        self.unmount()

    def mount(self) -> None:
        self._attach()
        _run("mount", "-t", self.format, "-o", "nosuid,nodev", self._device, self.place)

    def unmount(self) -> None:
        _run("umount", self.place)
        _run("losetup", "--detach", self._device)

    def _attach(self) -> None:
        direct = "on" if self.direct_io else "off"
        attach = ("losetup", "--find", "--show", "--sector-size", "4096", f"--direct-io={direct}", self.image)
        self._device = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()


@dataclass
class ZpoolByHand(ByHand):
    """The same with a zpool, which lies alone in a directory where it is looked for."""

    @property
    def _name(self) -> str:
        return f"hand{os.getpid()}"

    def make(self) -> None:
        with self.image.open("wb") as file:
            file.truncate(_SIZE)
        self._attach()
        _run("zpool", "create", "-o", "cachefile=none", "-m", self.place, self._name, self._device)
        self.unmount()

    def mount(self) -> None:
        self._attach()
        devices = self.image.with_name("devices")
        devices.mkdir(exist_ok=True)
        link = devices / "device"
        link.unlink(missing_ok=True)
        link.symlink_to(self._device)
        _run("zpool", "import", "-o", "cachefile=none", "-d", devices, self._name)

    def unmount(self) -> None:
        _run("zpool", "export", self._name)
        _run("losetup", "--detach", self._device)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _by_hand(run: Run, format: str, *, direct_io: bool = True) -> ByHand:
    directory = run.scratch.directory("hand")
    place = directory / "mounted"
    place.mkdir()
    kind = ZpoolByHand if format == "zfs" else ByHand
    return kind(format, directory / "image", place, direct_io)


def define(tree: ControlTree, name: str, format: str, size: int) -> Path:
    """The status file of a new volume pool on an image."""
    (tree.mount / "define").write_text(
        f"<fspool type='volume'><name>{name}</name><capacity>{size}</capacity><source><pool name='images'/>"
        f"<volume name='{name}'/><format type='{format}'/></source></fspool>\n"
    )
    return Path(tree.status(name))


def measure_volumes(run: Run) -> Iterator[Row]:
    """Each format's life in turns with the same by hand, then the data of items, then many pools at once."""
    with run.subject() as tree:
        for format in _MAKE:
            yield from _measure_life(run, tree, format)
        if shutil.which("zfs-fuse"):
            with zfs.running():
                yield from _measure_life(run, tree, "zfs")
        for format in _MAKE:
            yield from _measure_data(run, tree, format)
    yield from _measure_many(run)


def _measure_life(run: Run, tree: ControlTree, format: str) -> Iterator[Row]:
    status, hand = define(tree, f"life-{format}", format, _SIZE), _by_hand(run, format)

    def verb(words: str) -> object:
        return status.write_text(f"{words}\n")

    verb("build")
    hand.make()
    started = interleave(
        [
            Contender(
                name=SUBJECT, prepare=lambda _: _settled(verb, "stop", status), act=lambda _: verb("start")
            ),
            Contender(name=_BARE, prepare=lambda _: _let_go(hand), act=lambda _: hand.mount()),
        ],
        turns=run.effort.volume_turns,
    )
    stopped = interleave(
        [
            Contender(
                name=SUBJECT, prepare=lambda _: _settled(verb, "start", status), act=lambda _: verb("stop")
            ),
            Contender(name=_BARE, prepare=lambda _: _take(hand), act=lambda _: hand.unmount()),
        ],
        turns=run.effort.volume_turns,
    )
    built = interleave(
        [
            Contender(name=SUBJECT, prepare=lambda _: verb("delete"), act=lambda _: verb("build")),
            Contender(
                name=_BARE, prepare=lambda _: hand.image.unlink(missing_ok=True), act=lambda _: hand.make()
            ),
        ],
        turns=run.effort.volume_turns,
    )
    yield row(
        f"start of a pool on {format}", started[SUBJECT], "losetup + mount", started[_BARE], _NEAR_THE_CALLS
    )
    yield row(
        f"stop of a pool on {format}",
        stopped[SUBJECT],
        "umount + losetup -d",
        stopped[_BARE],
        _NEAR_THE_CALLS,
    )
    yield row(f"build of a pool on {format}", built[SUBJECT], "truncate + losetup + mkfs", built[_BARE])


def _settled(verb: object, words: str, status: Path) -> None:
    """Bring the pool into the other state, if it is not in it."""
    assert callable(verb)
    wanted = {"stop": "inactive", "start": "active"}[words]
    if status.read_text().split()[0] != wanted:
        verb(words)


def _let_go(hand: ByHand) -> None:
    if os.path.ismount(hand.place):
        hand.unmount()


def _take(hand: ByHand) -> None:
    if not os.path.ismount(hand.place):
        hand.mount()


def _measure_data(run: Run, tree: ControlTree, format: str) -> Iterator[Row]:
    """fio on an item of a pool beside the same file system mounted by hand; loop direct I/O on and off."""
    status = define(tree, f"data-{format}", format, _SIZE)
    status.write_text("start build\n")
    item = tree.items(f"data-{format}") / "web"
    item.mkdir()
    hands = {name: _by_hand(run, format, direct_io=direct) for name, direct in (("on", True), ("off", False))}
    for hand in hands.values():
        hand.make()
        hand.mount()
    places = (item / "data", hands["on"].place, hands["off"].place)
    try:
        for pattern in PATTERNS:
            inside, on, off = compare(pattern, places, run)
            for where, value, goal in (
                ("an item's data", inside, Goal(low=0.95)),
                ("loop without direct I/O", off, None),
            ):
                yield Row(
                    name=f"fio {pattern.name}, {format}, {where}",
                    value=value,
                    unit=Unit.BYTES_PER_SECOND,
                    against="the same mounted by hand, direct I/O",
                    reference=on,
                    goal=goal,
                )
    finally:
        for hand in hands.values():
            hand.unmount()
    status.write_text("stop\n")


def _measure_many(run: Run) -> Iterator[Row]:
    """Pools that are started with the daemon, all at once."""
    count, installation = run.effort.volume_pools, run.install()
    names = [f"p{number}" for number in range(count)]
    tree = installation.start()
    with tree.server:
        tree.wait_until_mounted()
        for name in names:
            define(tree, name, "ext4", _SMALL).write_text("build\n")
            (tree.pool(name) / "autostart").write_text("1\n")
        alone = statistics.median(_starts_alone(tree, names[:10]))
    tree = installation.start()
    with tree.server:
        tree.wait_until_mounted()
        began = time.perf_counter()
        for name in names:
            tree.wait_until_active(name)
        took = time.perf_counter() - began
        for name in names:
            Path(tree.status(name)).write_text("stop\n")
    cores = os.cpu_count() or 1
    yield row(
        f"{count} pools autostarted at once",
        took,
        f"the start of one alone × {count} / {cores} cores",
        alone * count / cores,
        _PARALLEL,
    )


def _starts_alone(tree: ControlTree, names: Sequence[str]) -> Iterator[float]:
    for name in names:
        status = Path(tree.status(name))
        began = time.perf_counter()
        status.write_text("start\n")
        yield time.perf_counter() - began
        status.write_text("stop\n")
