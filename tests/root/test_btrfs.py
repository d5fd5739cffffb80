"""What is peculiar to btrfs: limits that the kernel enforces, what it counts, what is refused.

On real file systems, with the kernel's qgroups and with its simple quotas. What is not on disk yet is
not counted, so that tests sync before they look at numbers.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.cases import item
from fspoolfs.backends import btrfs as backend
from fspoolfs.backends.btrfs import BtrfsFileSystem
from fspoolfs.errors import UnsupportedError
from fspoolfs.progress import Progress
from fspoolfs.system import btrfs, qgroups
from fspoolfs.system.paths import HostRoot
from fspoolfs.system.qgroups import Mode, Status
from root.subvolumes import (
    ALICE,
    MIB,
    NEEDS,
    ROOT,
    allocation,
    at,
    groups,
    id_of,
    make_escaping,
    make_subvolume,
    opened,
    sized,
    write,
)
from support.needs import skip_unless_runnable
from support.shell import User, run
from support.volumes import Volumes

pytestmark = [*NEEDS, pytest.mark.required]

PROJECT = Path(__file__).parents[2]


@pytest.fixture(params=["btrfs-qgroup", "btrfs-simple"])
def filesystem(request: pytest.FixtureRequest, volumes: Volumes) -> Iterator[BtrfsFileSystem]:
    yield from opened(volumes.directory(request.param))


@pytest.fixture
def full(volumes: Volumes) -> Iterator[BtrfsFileSystem]:
    """With qgroups."""
    yield from opened(volumes.directory("btrfs-qgroup"))


@pytest.fixture
def simple(volumes: Volumes) -> Iterator[BtrfsFileSystem]:
    """With simple quotas."""
    yield from opened(volumes.directory("btrfs-simple"))


@pytest.fixture
def unlimited(volumes: Volumes) -> Iterator[BtrfsFileSystem]:
    """With quotas off."""
    yield from opened(volumes.directory("btrfs-plain"))


# Limits.


@pytest.mark.parametrize("user", [ROOT, ALICE], ids=["root", "user"])
def test_capacity_stops_everybody_and_can_be_raised_and_lifted(
    filesystem: BtrfsFileSystem, user: User
) -> None:
    filesystem.create("web", sized(8))
    assert write(filesystem, "web/a", 6, user)
    assert not write(filesystem, "web/b", 6, user)
    filesystem.update("web", sized(8), sized(16))
    assert write(filesystem, "web/b", 6, user)
    assert not write(filesystem, "web/c", 12, user)
    filesystem.update("web", sized(16), sized(None))
    assert write(filesystem, "web/c", 12, user)


def test_writer_goes_on_when_the_capacity_is_raised(filesystem: BtrfsFileSystem) -> None:
    filesystem.create("web", sized(4))
    with open(at(filesystem, "web/file"), "wb", buffering=0) as file:

        def write_on() -> None:
            for _ in range(8):
                file.write(bytes(MIB))
                os.fsync(file)

        with pytest.raises(OSError, match="quota exceeded"):
            write_on()
        filesystem.update("web", sized(4), sized(64))
        write_on()


def test_full_item_can_be_updated_all_the_same(filesystem: BtrfsFileSystem) -> None:
    filesystem.create("web", sized(None))
    assert write(filesystem, "web/file", 4)
    filesystem.update("web", sized(None), sized(2))
    filesystem.root.sync()
    with pytest.raises(OSError, match="quota exceeded"):
        os.chmod(at(filesystem, "web"), 0o700)
    wanted = replace(sized(2), permissions=item(0o750, 1001, 1001).permissions)
    filesystem.update("web", sized(2), wanted)
    info = filesystem.root.stat("web")
    assert (stat.S_IMODE(info.mode), info.owner) == (0o750, 1001)
    assert not write(filesystem, "web/more", 1)


def test_clone_has_a_limit_of_its_own_and_a_snapshot_none(filesystem: BtrfsFileSystem) -> None:
    filesystem.create("web", sized(4))
    assert write(filesystem, "web/file", 3)
    filesystem.snapshot("web", "kept", Progress())
    filesystem.clone("kept", "copy", replace(sized(16), permissions=item(0o700).permissions), Progress())
    assert write(filesystem, "copy/more", 8)
    assert not write(filesystem, "copy/most", 16)
    limits = {number: group.limit for number, group in groups(filesystem).items()}
    assert limits[id_of(filesystem, "kept")] is None


def test_clone_of_a_full_item_gets_its_owner_and_mode(filesystem: BtrfsFileSystem) -> None:
    filesystem.create("web", sized(4))
    assert not write(filesystem, "web/file", 8)
    filesystem.clone("web", "copy", replace(item(0o700, 1001, 1001), capacity=4 * MIB), Progress())
    info = filesystem.root.stat("copy")
    assert (stat.S_IMODE(info.mode), info.owner) == (0o700, 1001)


# Usage, and subvolumes that users make.


@pytest.mark.parametrize("many", [False, True])
def test_usage_follows_items_that_move_and_change_places(
    filesystem: BtrfsFileSystem, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    for path, mib in (("web", 4), ("customers/db", 2)):
        filesystem.create(path, sized(None))
        assert write(filesystem, f"{path}/file", mib)
    filesystem.root.sync()
    if many:
        monkeypatch.setattr(backend, "_FEW", 0)
    paths = ["web", "customers/db", "customers/web", "missing/web", "customers"]

    def seen() -> dict[str, int]:
        return {path: round(info.allocation / MIB) for path, info in filesystem.usages(paths).items()}

    assert seen() == {"web": 4, "customers/db": 2}
    filesystem.root.exchange("web", "customers/db")
    assert seen() == {"web": 2, "customers/db": 4}
    filesystem.move("web", "customers/web")
    assert seen() == {"customers/web": 2, "customers/db": 4}


def test_subvolumes_of_users_are_counted(filesystem: BtrfsFileSystem) -> None:
    filesystem.create("web", sized(None))
    make_subvolume(filesystem, "web/mine")
    make_subvolume(filesystem, "web/mine/deeper")
    for path in ("web/a", "web/mine/b", "web/mine/deeper/c"):
        assert write(filesystem, path, 2)
    assert round(allocation(filesystem, "web")) == 6
    assert filesystem.usages(["web"])["web"] == filesystem.usage("web")


def test_subvolumes_of_users_are_limited_by_simple_quotas(simple: BtrfsFileSystem) -> None:
    simple.create("web", sized(8))
    make_subvolume(simple, "web/mine")
    assert write(simple, "web/mine/a", 4, ALICE)
    assert not write(simple, "web/mine/b", 8, ALICE)
    assert not write(simple, "web/c", 4, ALICE)


def test_subvolumes_of_users_are_not_limited_by_qgroups(full: BtrfsFileSystem) -> None:
    """The kernel's way; when this fails it has learned better, and the documentation may say so."""
    full.create("web", sized(8))
    make_subvolume(full, "web/mine")
    assert write(full, "web/mine/a", 16, ALICE)
    assert allocation(full, "web") > 16


@pytest.mark.parametrize("how", ["one", "few", "many"])
def test_subvolume_that_evades_simple_quotas_is_counted_and_brought_back(
    simple: BtrfsFileSystem, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "many":
        monkeypatch.setattr(backend, "_FEW", 0)
    simple.create("web", sized(8))
    make_escaping(simple, "web/escaped")
    assert write(simple, "web/escaped/a", 16)
    simple.root.sync()
    found = simple.usage("web") if how == "one" else simple.usages(["web"])["web"]
    assert round(found.allocation / MIB) == 16
    assert not write(simple, "web/escaped/b", 1)
    assert round(allocation(simple, "web")) == 16


def test_what_was_made_before_is_limited_from_the_first_capacity_on(simple: BtrfsFileSystem) -> None:
    make_subvolume(simple, "web", ROOT)
    make_subvolume(simple, "web/mine", ROOT)
    simple.update("web", item(), sized(8))
    assert not write(simple, "web/mine/a", 16)


# Snapshots.


def test_snapshot_and_frozen_item_are_read_only(filesystem: BtrfsFileSystem) -> None:
    filesystem.create("web", sized(4))
    assert not write(filesystem, "web/file", 8)
    filesystem.snapshot("web", "kept", Progress())
    filesystem.freeze("web")
    for path in ("kept", "web"):
        with pytest.raises(OSError, match="Read-only file system"):
            at(filesystem, f"{path}/new").touch()


def test_snapshot_stays_read_only_when_it_moves(filesystem: BtrfsFileSystem) -> None:
    filesystem.create("web", sized(8))
    filesystem.snapshot("web", "kept", Progress())
    before = filesystem.identify("kept")
    filesystem.move("kept", "purge/kept")
    assert filesystem.identify("purge/kept") == before
    with pytest.raises(OSError, match="Read-only file system"):
        at(filesystem, "purge/kept/new").touch()


@pytest.mark.parametrize(("kind", "expected"), [("btrfs-simple", (8, 0, 0)), ("btrfs-qgroup", (4, 4, 4))])
def test_who_counts_what_a_snapshot_and_a_clone_share(
    volumes: Volumes, kind: str, expected: tuple[int, int, int]
) -> None:
    for filesystem in opened(volumes.directory(kind)):
        filesystem.create("web", sized(None))
        assert write(filesystem, "web/file", 4)
        filesystem.snapshot("web", "kept", Progress())
        filesystem.clone("web", "copy", sized(None), Progress())
        at(filesystem, "web/file").unlink()
        assert write(filesystem, "web/file", 4)
        assert tuple(round(allocation(filesystem, path)) for path in ("web", "kept", "copy")) == expected


def test_subvolumes_inside_come_as_empty_directories(filesystem: BtrfsFileSystem) -> None:
    filesystem.create("web", sized(None))
    make_subvolume(filesystem, "web/mine")
    assert write(filesystem, "web/mine/file", 1)
    filesystem.snapshot("web", "kept", Progress())
    assert filesystem.root.names("kept/mine") == []


# What is no subvolume, and what is refused.


def test_plain_directory_is_an_item_without_capacity(filesystem: BtrfsFileSystem) -> None:
    filesystem.root.make_directory("old", mode=0o755)
    filesystem.update("old", item(), item(0o750, 1001, 1001))
    with pytest.raises(UnsupportedError, match=r"item web: .*/old is no subvolume.*; leave <capacity> out"):
        filesystem.update("old", item(), sized(8))
    with pytest.raises(UnsupportedError, match="/old is no subvolume"):
        filesystem.usage("old")
    assert filesystem.usages(["old"]) == {}
    at(filesystem, "old/file").touch()
    filesystem.snapshot("old", "kept", Progress())
    assert filesystem.root.names("kept") == ["file"]
    assert filesystem.root.names(".fspool/staging") == []
    with pytest.raises(OSError, match="Read-only file system"):
        at(filesystem, "kept/new").touch()
    filesystem.freeze("old")
    assert filesystem.identify("old") != filesystem.identify("kept")
    filesystem.clone("old", "copy", sized(8), Progress())
    assert not write(filesystem, "copy/file", 16)


def test_clone_of_a_plain_directory_is_durable(
    filesystem: BtrfsFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem.root.make_directory("old", mode=0o755)
    assert write(filesystem, "old/file", 1)
    held: list[list[str]] = []
    monkeypatch.setattr(filesystem.root, "sync", lambda: held.append(filesystem.root.names("copy")))
    filesystem.clone("old", "copy", item(), Progress())
    assert held == [["file"]]


def test_switched_off_quotas_tell_how_to_switch_them_on(unlimited: BtrfsFileSystem) -> None:
    how = f"btrfs quota enable --simple {unlimited.root.path}"
    with pytest.raises(UnsupportedError, match=rf"item web: no capacity .*{how}.*; leave <capacity> out"):
        unlimited.check(sized(8))
    refused = {feature.name: feature.reason for feature in unlimited.features() if not feature.usable}
    assert refused.keys() == {"quota", "files", "usage", "resize"}
    assert how in refused["quota"]
    unlimited.create("web", sized(None))
    with pytest.raises(UnsupportedError, match=how):
        unlimited.update("web", sized(None), sized(8))
    with pytest.raises(UnsupportedError, match=how):
        unlimited.usage("web")
    assert unlimited.usages(["web"]) == {}


def test_number_of_files_is_refused(filesystem: BtrfsFileSystem) -> None:
    with pytest.raises(UnsupportedError, match=r"item web: .*number of files.*; leave <files> out"):
        filesystem.check(replace(item(), files=100))


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (Status(Mode.FULL), "does not limit"),
        (Status(Mode.SIMPLE), "where it was written"),
        (Status(Mode.FULL, inconsistent=True), "wrong.*btrfs quota rescan -w "),
        (Status(Mode.FULL, inconsistent=True, rescanning=True), "a rescan is counting"),
    ],
)
def test_features_tell_what_to_know_of_the_counters(
    full: BtrfsFileSystem, monkeypatch: pytest.MonkeyPatch, status: Status, told: str
) -> None:
    monkeypatch.setattr(qgroups, "status", lambda fd: status)
    notes = {feature.name: feature.note for feature in full.features()}
    assert re.search(told, notes["quota"])


def test_daemon_of_a_user_gets_the_generic_file_system(simple: BtrfsFileSystem) -> None:
    skip_unless_runnable(ALICE)
    look = (
        "import pathlib, sys\n"
        "from fspoolfs.backends.registry import default_registry\n"
        "from fspoolfs.system.paths import HostRoot\n"
        "print(default_registry(pathlib.Path('/nonexistent')).filesystem_at(HostRoot.open(sys.argv[1])).name)\n"
    )
    for user, name in ((ROOT, "btrfs"), (ALICE, "generic")):
        result = run(sys.executable, "-c", look, simple.root.path, user=user, cwd=PROJECT)
        assert result.stdout.strip() == name


def test_root_elsewhere_is_not_taken(tmp_path: Path) -> None:
    with closing(HostRoot.open(str(tmp_path))) as root:
        if root.filesystem_magic() != btrfs.MAGIC:
            assert backend.probe(root) is None
