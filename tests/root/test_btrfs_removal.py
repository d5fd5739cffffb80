"""Removing items from btrfs: what users made in them, what was interrupted, and their groups."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fspoolfs.backends import btrfs as backend
from fspoolfs.backends import btrfs_quotas
from fspoolfs.backends.btrfs import BtrfsFileSystem
from fspoolfs.errors import CancelledError, StorageError
from fspoolfs.progress import Progress
from fspoolfs.system import btrfs, qgroups
from root.subvolumes import (
    MIB,
    NEEDS,
    at,
    groups,
    id_of,
    make_subvolume,
    opened,
    set_read_only,
    sized,
    write,
)
from support.shell import run
from support.volumes import Volumes
from support.wait import eventually

pytestmark = [*NEEDS, pytest.mark.required]


@pytest.fixture(params=["btrfs-qgroup", "btrfs-simple"])
def filesystem(request: pytest.FixtureRequest, volumes: Volumes) -> Iterator[BtrfsFileSystem]:
    yield from opened(volumes.directory(request.param))


@pytest.fixture
def simple(volumes: Volumes) -> Iterator[BtrfsFileSystem]:
    """With simple quotas."""
    yield from opened(volumes.directory("btrfs-simple"))


def furnish(filesystem: BtrfsFileSystem, item_path: str) -> None:
    """Nested subvolumes, some of them read-only, in a full item."""
    filesystem.create(item_path, sized(None))
    for name in ("a", "a/b", "a/b/c", "d"):
        make_subvolume(filesystem, f"{item_path}/{name}")
    assert write(filesystem, f"{item_path}/a/b/c/file", 2)
    for name in ("a/b", "a"):
        set_read_only(filesystem, f"{item_path}/{name}")
    filesystem.update(item_path, sized(None), sized(1))


@pytest.mark.parametrize("frozen", [False, True])
def test_item_is_removed_with_all_subvolumes_in_it(filesystem: BtrfsFileSystem, frozen: bool) -> None:
    furnish(filesystem, "web")
    if frozen:
        filesystem.freeze("web")
    filesystem.remove("web", Progress())
    assert filesystem.root.names("") == []


def test_plain_directory_is_removed_with_all_subvolumes_in_it(filesystem: BtrfsFileSystem) -> None:
    furnish(filesystem, "all/deep/web")
    filesystem.snapshot("all/deep/web", "all/kept", Progress())
    at(filesystem, "all/link").symlink_to("deep")
    filesystem.remove("all", Progress())
    assert filesystem.root.names("") == []


def test_removal_can_be_cancelled_between_subvolumes_and_finished(filesystem: BtrfsFileSystem) -> None:
    class Impatient(Progress):
        def advance(self, count: int = 1) -> None:
            super().advance(count)
            if self.done == 2:
                self.cancel()

    furnish(filesystem, "web")
    with pytest.raises(CancelledError):
        filesystem.remove("web", Impatient())
    assert filesystem.root.names("") == ["web"]
    filesystem.remove("web", Progress())
    assert filesystem.root.names("") == []


def test_what_leads_elsewhere_is_never_followed(filesystem: BtrfsFileSystem) -> None:
    filesystem.create("precious", sized(None))
    at(filesystem, "link").symlink_to("precious")
    filesystem.remove("link", Progress())
    filesystem.root.make_directory("point", mode=0o755)
    run("mount", "--bind", at(filesystem, "precious"), at(filesystem, "point"))
    try:
        with pytest.raises(StorageError, match="mount point"):
            filesystem.remove("point", Progress())
    finally:
        run("umount", at(filesystem, "point"))
    assert sorted(filesystem.root.names("")) == ["point", "precious"]


def test_groups_go_with_their_subvolumes(filesystem: BtrfsFileSystem) -> None:
    furnish(filesystem, "web")
    filesystem.snapshot("web", "kept", Progress())
    with filesystem._opened("") as fd:
        mine = {reference.child for reference in btrfs.references(fd)}
    own = qgroups.group_id(btrfs_quotas.LEVEL, id_of(filesystem, "web"))
    for path in ("web", "kept"):
        filesystem.remove(path, Progress())
    with filesystem._opened("") as fd:
        mine -= {reference.child for reference in btrfs.references(fd)}
    assert own not in groups(filesystem)

    def gone() -> bool:
        filesystem.root.sync()
        filesystem.remove("nothing", Progress())
        filesystem.tidy()
        return not mine & groups(filesystem).keys()

    eventually(gone, what="the groups are gone", timeout=20)


def test_group_stays_as_long_as_a_clone_shares_what_it_counts(simple: BtrfsFileSystem) -> None:
    simple.create("web", sized(8))
    assert write(simple, "web/file", 2)
    simple.clone("web", "copy", sized(8), Progress())
    web = id_of(simple, "web")
    simple.remove("web", Progress())
    assert groups(simple)[web].referenced >= 2 * MIB
    simple.remove("copy", Progress())

    def gone() -> bool:
        simple.root.sync()
        simple.tidy()
        return web not in groups(simple)

    eventually(gone, what="the groups are gone", timeout=20)


def test_start_removes_groups_of_items_that_are_gone_and_no_others(simple: BtrfsFileSystem) -> None:
    for name in ("web", "db"):
        simple.create(name, sized(8))
    own = {name: qgroups.group_id(btrfs_quotas.LEVEL, id_of(simple, name)) for name in ("web", "db")}
    foreign = qgroups.group_id(1, id_of(simple, "web"))
    with simple._opened("") as fd:
        qgroups.create(fd, foreign)
        btrfs.destroy(fd, id_of(simple, "web"))  # a crash in the middle of a removal
    assert backend.probe(simple.root) is not None
    found = groups(simple)
    assert own["web"] not in found
    assert {own["db"], foreign} <= found.keys()
    with simple._opened("") as fd:
        qgroups.remove(fd, foreign)
