"""When a reading of all mounts is kept, and when it is thrown away."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from fspoolfs.errors import BusyError
from fspoolfs.model.infos import UNTOLD, MountUse
from fspoolfs.service import usage
from fspoolfs.system import mounts, mounttable, namespaces
from fspoolfs.system.mounttable import MountTable
from fspoolfs.system.namespaces import MountWatch

USE = MountUse(pid=1, command="init", inside="web", target="/data")


class FakeTable:
    """A reading whose answers the test decides."""

    read: list[FakeTable]

    def __init__(self) -> None:
        self.watchable = True
        self.answer: list[MountUse] | None = []
        self.has_changed = False
        self.known: Callable[[int], bool] = lambda pid: True

    def uses(self, path: str, opened: object) -> list[MountUse] | None:
        return self.answer

    def changed(self) -> bool:
        return self.has_changed

    def knows(self, pid: int) -> bool:
        return self.known(pid)


class Host:
    """The host of the fake tables: its clock, its last process, and what was read of it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.last_pid = 500
        self.tables: list[FakeTable] = []
        self.next = FakeTable

    def read(self) -> FakeTable:
        self.tables.append(self.next())
        return self.tables[-1]


@pytest.fixture(autouse=True)
def nothing_kept_by_others() -> None:
    """What is open is counted here."""
    mounts.forget_recent()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(namespaces, "open_directory", lambda path: None)
    fake = Host()
    monkeypatch.setattr(MountTable, "read", fake.read)
    monkeypatch.setattr(namespaces, "time", SimpleNamespace(monotonic=lambda: fake.now))
    monkeypatch.setattr(MountWatch, "_read_last_pid", lambda self: fake.last_pid)
    # The thread would see the time stand still.
    monkeypatch.setattr(MountWatch, "_watch_age", lambda self: None)
    return fake


@pytest.fixture
def watch() -> Iterator[MountWatch]:
    made = MountWatch()
    yield made
    made.forget()


def test_a_reading_is_kept_while_nothing_happens(host: Host, watch: MountWatch) -> None:
    for _ in range(10):
        assert watch.uses("/x") == []
    assert len(host.tables) == 1


def test_a_changed_namespace_is_read_again(host: Host, watch: MountWatch) -> None:
    watch.uses("/x")
    host.tables[0].has_changed = True
    watch.uses("/x")
    assert len(host.tables) == 2


def test_an_old_reading_is_thrown_away(host: Host, watch: MountWatch) -> None:
    watch.uses("/x")
    host.now += namespaces.LIFETIME
    watch.uses("/x")
    assert len(host.tables) == 2


def test_new_processes_in_known_namespaces_change_nothing_and_are_looked_at_each_time(
    host: Host, watch: MountWatch
) -> None:
    watch.uses("/x")
    looked_at: list[int] = []

    def known(pid: int) -> bool:
        looked_at.append(pid)
        return True

    host.tables[0].known = known
    host.last_pid += 2
    watch.uses("/x")
    watch.uses("/x")
    assert looked_at == [501, 502, 501, 502]
    assert len(host.tables) == 1


def test_a_new_process_in_a_new_namespace_is_seen(host: Host, watch: MountWatch) -> None:
    watch.uses("/x")
    host.last_pid += 1
    host.tables[0].known = lambda pid: False
    watch.uses("/x")
    assert len(host.tables) == 2


@pytest.mark.parametrize("step", [namespaces._YOUNG + 1, -1])
def test_many_new_processes_or_numbers_that_begin_anew_need_a_new_reading(
    host: Host, watch: MountWatch, step: int
) -> None:
    watch.uses("/x")
    host.last_pid += step
    watch.uses("/x")
    assert len(host.tables) == 2


def test_in_use_is_said_only_by_a_fresh_reading(host: Host, watch: MountWatch) -> None:
    """That a process has ended shows nowhere, and "in use" would be a lie then."""
    watch.uses("/x")
    host.tables[0].answer = [USE]
    assert watch.uses("/x") == []
    assert len(host.tables) == 2


def test_what_was_so_lately_is_told_by_the_kept_reading(host: Host, watch: MountWatch) -> None:
    watch.uses("/x")
    host.tables[0].answer = [USE]
    host.tables[0].has_changed = True
    host.last_pid += 1000
    assert watch.uses("/x", lately=True) == [USE]
    assert len(host.tables) == 1


@pytest.mark.parametrize("outdated", ["old", "unknown"])
def test_what_was_so_lately_is_not_told_by_an_outdated_reading(
    host: Host, watch: MountWatch, outdated: str
) -> None:
    watch.uses("/x")
    if outdated == "old":
        host.now += namespaces.LIFETIME
    else:
        host.tables[0].answer = None
        host.tables[0].has_changed = True
    assert watch.uses("/x", lately=True) == []
    assert len(host.tables) == 2


def test_what_is_mounted_in_a_directory_is_found_and_nothing_beside_it() -> None:
    targets = ["/", "/a", "/a b", "/a-c", "/a/x", "/a/x/deep", "/a0", "/b"]
    lines = [f"{number} 1 0:{number} / {target}" for number, target in enumerate(targets)]
    namespace = mounttable._Namespace("mnt:[1]", 1)
    namespace.fill("\n".join(line.replace("a b", "a\\040b") + " rw - t s o" for line in lines).encode())

    def beneath(path: str) -> list[str]:
        return [target for target, _ in namespace.beneath(path)]

    assert beneath("/a") == ["/a/x", "/a/x/deep"]
    assert beneath("/a b") == []
    assert beneath("/") == sorted(targets[1:])


def test_a_user_is_told_by_the_first_reading_already(host: Host, watch: MountWatch) -> None:
    def used() -> FakeTable:
        table = FakeTable()
        table.answer = [USE]
        return table

    host.next = used  # type: ignore[assignment]
    assert watch.uses("/x") == [USE]
    assert len(host.tables) == 1


def test_a_mount_that_is_newer_than_the_reading_is_read(host: Host, watch: MountWatch) -> None:
    watch.uses("/x")
    host.tables[0].answer = None
    assert watch.uses("/x") == []
    assert len(host.tables) == 2


def test_a_mount_that_no_reading_knows_is_told_as_busy(host: Host, watch: MountWatch) -> None:
    def blind() -> FakeTable:
        table = FakeTable()
        table.answer = None
        return table

    host.next = blind  # type: ignore[assignment]
    with pytest.raises(BusyError, match="try again"):
        watch.uses("/x")


def test_too_many_namespaces_are_read_but_never_kept(host: Host, watch: MountWatch) -> None:
    def unwatchable() -> FakeTable:
        table = FakeTable()
        table.watchable = False
        return table

    host.next = unwatchable  # type: ignore[assignment]
    watch.uses("/x")
    watch.uses("/x")
    assert len(host.tables) == 2


def descriptors() -> list[str]:
    """What this process has open below /proc."""
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:  # the one that listed them
            continue
    return [link for link in links if link.endswith(("/mountinfo", "/loadavg"))]


def test_an_unused_directory_has_no_users(tmp_path: Path, watch: MountWatch) -> None:
    assert watch.uses(str(tmp_path)) == []


def test_what_is_no_directory_cannot_be_asked_about(tmp_path: Path, watch: MountWatch) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "absent"):
        with pytest.raises(OSError, match=name):
            watch.uses(str(tmp_path / name))


def test_forgetting_closes_everything(tmp_path: Path, watch: MountWatch) -> None:
    watch.uses(str(tmp_path))
    assert descriptors()
    watch.forget()
    assert descriptors() == []
    assert watch.uses(str(tmp_path)) == []


def test_a_reading_is_dropped_in_time_even_when_nobody_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps the namespaces of processes that have ended alive, and their mounts with them."""
    monkeypatch.setattr(namespaces, "LIFETIME", 0.05)
    watch = MountWatch()
    watch.uses(str(tmp_path))
    reaper = watch._reaper
    if reaper is not None:  # it may have done its work already
        reaper.join(10)
    assert descriptors() == []
    assert watch.uses(str(tmp_path)) == []
    watch.forget()


def test_a_process_that_ends_or_appears_is_no_error(tmp_path: Path, watch: MountWatch) -> None:
    for _ in range(20):
        subprocess.run(["true"], check=True)
        assert watch.uses(str(tmp_path)) == []


def test_threads_may_ask_at_once(tmp_path: Path, watch: MountWatch) -> None:
    answers: list[list[MountUse]] = []

    def ask() -> None:
        for _ in range(20):
            answers.append(watch.uses(str(tmp_path)))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [[]] * 80


def test_want_of_descriptors_is_never_taken_for_unused(
    tmp_path: Path, watch: MountWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(path: str, flags: int) -> int:
        raise OSError(24, "Too many open files", path)

    monkeypatch.setattr(os, "open", exhausted)
    with pytest.raises(OSError, match="Too many open files"):
        watch.uses(str(tmp_path))


def test_a_command_name_cannot_break_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = Path("/proc/self/comm").read_bytes()
    try:
        Path("/proc/self/comm").write_bytes(b"a\nb\x1b[\xff")
        assert mounttable._command(os.getpid()) == "a?b?[\N{REPLACEMENT CHARACTER}"
    finally:
        Path("/proc/self/comm").write_bytes(before)
    assert mounttable._command(2**30) == "(ended)"


# Mounts that do not tell what they show.

#: Two pools on one server, one of them with its own view of snapshots and a container's mount of an item.
NFS_MOUNTS = b"""\
20 1 8:1 / / rw - ext4 /dev/sda1 rw
30 20 0:50 / /srv/tank rw - nfs4 10.0.0.7:/tank rw
31 20 0:51 / /srv/other rw - nfs4 10.0.0.7:/other rw
32 20 0:50 / /state/snapshots/tank ro - nfs4 10.0.0.7:/tank rw
33 20 0:50 / /var/lib/container/data rw - nfs4 10.0.0.7:/tank rw
34 20 8:1 /srv/plain /mnt rw - ext4 /dev/sda1 rw
"""


def nfs_table(monkeypatch: pytest.MonkeyPatch, shown: int) -> MountTable:
    """The table of such a host, on which the mount `shown` is the root that is asked about."""
    table = MountTable()
    namespace = mounttable._Namespace(table._own, 1)
    namespace.fill(NFS_MOUNTS)
    table._namespaces = {table._own: namespace}
    for line in namespace.lines:
        table._by_device.setdefault(line.device, []).append(line)
    own = namespace.find(str(shown).encode())
    assert own is not None
    place = mounttable._Directory(own.device, mounttable.unescape(own.root), own)
    monkeypatch.setattr(table, "_locate", lambda fd: place)
    monkeypatch.setattr(mounttable, "_command", lambda pid: "init")
    return table


def test_every_mount_of_an_nfs_export_may_be_of_any_item(monkeypatch: pytest.MonkeyPatch) -> None:
    uses = nfs_table(monkeypatch, 30).uses("/srv/tank", SimpleNamespace(fd=-1))  # type: ignore[arg-type]
    assert uses is not None
    assert [(use.inside, use.target) for use in uses] == [
        (UNTOLD, "/state/snapshots/tank"),
        (UNTOLD, "/var/lib/container/data"),
    ]
    assert usage.of_location(uses, "web", "shop") == uses
    assert nfs_table(monkeypatch, 31).uses("/srv/other", SimpleNamespace(fd=-1)) == []  # type: ignore[arg-type]


def test_our_own_view_of_snapshots_is_known_by_its_place(host: Host) -> None:
    watch = MountWatch(("/state/snapshots", ".fspool/snapshots"))
    own = MountUse(pid=1, command="init", inside=UNTOLD, target="/state/snapshots/tank")
    other = replace(own, target="/var/lib/container/data")

    def table() -> FakeTable:
        made = FakeTable()
        made.answer = [own, other, USE]
        return made

    host.next = table
    found = watch.uses("/x")
    assert found == [replace(own, inside=".fspool/snapshots"), other, USE]
    assert usage.of_pool(found) == [other, USE]
    assert usage.of_location(found, "shop") == [other]
