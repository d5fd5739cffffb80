"""The contract of `FileSystem` and of what it may implement beside it, over every file system."""

from __future__ import annotations

import os
import stat
from dataclasses import replace

import pytest

from conformance.cases import item
from fspoolfs.backends import layout
from fspoolfs.backends.filesystem import (
    FEATURES,
    Cloner,
    FileSystem,
    Measurer,
    SnapshotPlaces,
    Snapshotter,
    Usage,
)
from fspoolfs.errors import CancelledError, UnsupportedError
from fspoolfs.progress import Progress
from support.wait import eventually

#: What a file system that has the feature implements.
IMPLEMENTED_BY = {"usage": Usage, "snapshot": Snapshotter, "clone": Cloner}


def attributes(filesystem: FileSystem, path: str) -> tuple[int, int, int]:
    info = filesystem.root.stat(path)
    assert stat.S_ISDIR(info.mode)
    return stat.S_IMODE(info.mode), info.owner, info.group


def put(filesystem: FileSystem, path: str, data: bytes = b"data") -> None:
    filesystem.root.write(path, data, replace=False, durable=False)


def contents(filesystem: FileSystem) -> list[str]:
    """What is in the root but fspoolfs' own directory, which some make for what is not whole yet."""
    return [name for name in filesystem.root.names("") if name != layout.OWN]


def held(filesystem: FileSystem, snapshot: str) -> str:
    """Where what a snapshot holds can be read."""
    return filesystem.place(snapshot) if isinstance(filesystem, SnapshotPlaces) else snapshot


def usable(filesystem: FileSystem) -> set[str]:
    return {feature.name for feature in filesystem.features() if feature.usable}


# Features.


def test_every_feature_is_answered_for_once_in_order(filesystem: FileSystem) -> None:
    assert tuple(feature.name for feature in filesystem.features()) == FEATURES


def test_usable_feature_is_implemented(filesystem: FileSystem) -> None:
    for name in usable(filesystem) & IMPLEMENTED_BY.keys():
        assert isinstance(filesystem, IMPLEMENTED_BY[name]), name


def test_feature_is_refused_with_a_reason_of_one_line(filesystem: FileSystem) -> None:
    for feature in filesystem.features():
        assert feature.usable or len(feature.reason.split()) > 3
        assert "\n" not in feature.reason


def test_capacity_is_refused_exactly_where_there_is_no_quota(filesystem: FileSystem) -> None:
    wanted = replace(item(), capacity=1 << 30)
    if "quota" in usable(filesystem):
        filesystem.check(wanted)
    else:
        with pytest.raises(UnsupportedError, match=r"item web: .*capacity.*; leave"):
            filesystem.check(wanted)


def test_item_without_limits_is_always_accepted(filesystem: FileSystem) -> None:
    filesystem.check(item(mode=0o1777, owner=0, group=0))


# Creating.


@pytest.mark.usefixtures("strict_umask")
def test_created_item_is_an_empty_directory_with_its_owner_and_mode(
    filesystem: FileSystem, stranger: int
) -> None:
    filesystem.create("web", item(mode=0o1775, owner=stranger, group=stranger))
    assert attributes(filesystem, "web") == (0o1775, stranger, stranger)
    assert filesystem.root.names("web") == []


@pytest.mark.usefixtures("strict_umask")
@pytest.mark.parametrize("named", [False, True])
def test_created_item_of_the_daemons_own_has_its_mode(filesystem: FileSystem, named: bool) -> None:
    own = (os.geteuid(), os.getegid())
    filesystem.create("web", item(0o770, *own) if named else item(0o770))
    assert attributes(filesystem, "web") == (0o770, *own)


def test_created_item_has_its_group_whatever_the_root_gives(filesystem: FileSystem, stranger: int) -> None:
    filesystem.root.set_attributes("", mode=None, owner=None, group=stranger)
    filesystem.root.set_attributes("", mode=0o2775, owner=None, group=None)
    own = (os.geteuid(), os.getegid())
    filesystem.create("web", item(0o755, *own))
    assert attributes(filesystem, "web") == (0o755, *own)


@pytest.mark.usefixtures("strict_umask")
def test_creating_makes_missing_parents_that_let_pass(filesystem: FileSystem) -> None:
    filesystem.create("customers/north/web", item(0o700))
    filesystem.create("customers/north/db", item(0o700))
    assert attributes(filesystem, "customers")[0] == 0o755
    assert attributes(filesystem, "customers/north")[0] == 0o755
    assert sorted(filesystem.root.names("customers/north")) == ["db", "web"]


@pytest.mark.parametrize("path", ["web", "customers/web"])
def test_creating_over_something_is_refused_and_changes_nothing(filesystem: FileSystem, path: str) -> None:
    filesystem.create(path, item(0o700))
    put(filesystem, f"{path}/file")
    with pytest.raises(FileExistsError):
        filesystem.create(path, item(0o777))
    assert attributes(filesystem, path)[0] == 0o700
    assert filesystem.root.names(path) == ["file"]


# Updating.


def test_update_gives_owner_and_mode_and_can_be_repeated(filesystem: FileSystem, stranger: int) -> None:
    old, new = item(0o755), item(0o2750, stranger, stranger)
    filesystem.create("web", old)
    put(filesystem, "web/file")
    for _ in range(2):
        filesystem.update("web", old, new)
        assert attributes(filesystem, "web") == (0o2750, stranger, stranger)
    assert filesystem.root.names("web") == ["file"]


def test_update_completes_a_creation_that_was_interrupted(filesystem: FileSystem, stranger: int) -> None:
    wanted = item(0o755, stranger, stranger)
    filesystem.root.make_directory("web", mode=0o700)
    with pytest.raises(FileExistsError):
        filesystem.create("web", wanted)
    filesystem.update("web", wanted, wanted)
    assert attributes(filesystem, "web") == (0o755, stranger, stranger)


def test_update_leaves_what_is_not_named(filesystem: FileSystem) -> None:
    filesystem.create("web", item(0o701))
    filesystem.update("web", item(0o701), item())
    assert attributes(filesystem, "web")[0] == 0o701


def test_update_of_a_missing_item_is_refused(filesystem: FileSystem) -> None:
    with pytest.raises(FileNotFoundError):
        filesystem.update("web", item(), item(0o755))


# Moving.


def test_item_moves_away_and_back_with_all_it_holds(filesystem: FileSystem, stranger: int) -> None:
    filesystem.create("web", item(0o750, stranger, stranger))
    put(filesystem, "web/file")
    filesystem.root.make_directory("trash", mode=0o700)
    filesystem.move("web", "trash/1")
    assert contents(filesystem) == ["trash"]
    filesystem.move("trash/1", "web")
    assert attributes(filesystem, "web") == (0o750, stranger, stranger)
    assert filesystem.root.names("web") == ["file"]


def test_moving_never_replaces(filesystem: FileSystem) -> None:
    filesystem.create("web", item(0o700))
    filesystem.create("db", item(0o711))
    with pytest.raises(FileExistsError):
        filesystem.move("web", "db")
    assert attributes(filesystem, "web")[0] == 0o700
    assert attributes(filesystem, "db")[0] == 0o711


def test_moving_makes_missing_parents_and_leaves_those_of_the_source(filesystem: FileSystem) -> None:
    filesystem.create("a/b/web", item(0o755))
    filesystem.move("a/b/web", "c/d/web")
    assert filesystem.root.names("c/d") == ["web"]
    assert filesystem.root.names("a") == ["b"]


def test_moving_what_is_missing_is_refused_and_makes_nothing(filesystem: FileSystem) -> None:
    with pytest.raises(FileNotFoundError):
        filesystem.move("web", "c/d/web")
    assert contents(filesystem) == []


def test_repeated_move_tells_that_it_was_done(filesystem: FileSystem) -> None:
    filesystem.create("web", item(0o755))
    filesystem.move("web", "db")
    with pytest.raises(FileNotFoundError):
        filesystem.move("web", "db")
    assert contents(filesystem) == ["db"]


# Removing.


def test_removed_item_is_gone_and_removing_it_again_is_no_error(filesystem: FileSystem) -> None:
    filesystem.create("web", item(0o755))
    filesystem.create("db", item(0o755))
    filesystem.root.make_directory("web/inner", mode=0o755)
    put(filesystem, "web/inner/file")
    for _ in range(2):
        filesystem.remove("web", Progress())
        assert contents(filesystem) == ["db"]


def test_removing_where_not_even_the_parent_is_left_is_no_error(filesystem: FileSystem) -> None:
    filesystem.remove("customers/web", Progress())
    assert contents(filesystem) == []


def test_interrupted_removal_is_finished_by_repeating_it(filesystem: FileSystem) -> None:
    filesystem.create("web", item(0o755))
    for number in range(100):
        put(filesystem, f"web/{number}")
    progress = Progress()
    progress.cancel()
    with pytest.raises(CancelledError):
        filesystem.remove("web", progress)
    filesystem.remove("web", Progress())
    assert contents(filesystem) == []


# Cloning and measuring.


@pytest.fixture
def cloner(filesystem: FileSystem) -> Cloner:
    if not isinstance(filesystem, Cloner):
        assert "clone" not in usable(filesystem)
        pytest.skip(f"{filesystem.name} does not clone")
    return filesystem


@pytest.fixture
def measurer(filesystem: FileSystem) -> Measurer:
    if not isinstance(filesystem, Measurer):
        pytest.skip(f"{filesystem.name} does not measure")
    return filesystem


def furnish(filesystem: FileSystem, stranger: int) -> None:
    filesystem.create("web", item(0o750, stranger, stranger))
    filesystem.root.make_directory("web/inner", mode=0o755)
    put(filesystem, "web/inner/caf\udce9", b"content")
    filesystem.root.set_attributes("web/inner", mode=0o2711, owner=stranger, group=stranger)


def test_clone_holds_the_same_with_the_same_attributes(
    filesystem: FileSystem, cloner: Cloner, stranger: int
) -> None:
    furnish(filesystem, stranger)
    cloner.clone("web", "copy", item(), Progress())
    assert attributes(filesystem, "copy") == (0o750, stranger, stranger)
    assert attributes(filesystem, "copy/inner") == (0o2711, stranger, stranger)
    assert filesystem.root.read("copy/inner/caf\udce9", limit=99) == b"content"


def test_clone_belongs_to_whom_its_definition_says(
    filesystem: FileSystem, cloner: Cloner, stranger: int
) -> None:
    furnish(filesystem, stranger)
    cloner.clone("web", "staging/copy", item(0o1777, os.geteuid(), os.getegid()), Progress())
    assert attributes(filesystem, "staging/copy") == (0o1777, os.geteuid(), os.getegid())
    assert attributes(filesystem, "staging/copy/inner") == (0o2711, stranger, stranger)
    assert attributes(filesystem, "web") == (0o750, stranger, stranger)


def test_clone_is_independent_of_its_origin(filesystem: FileSystem, cloner: Cloner, stranger: int) -> None:
    furnish(filesystem, stranger)
    cloner.clone("web", "copy", item(), Progress())
    filesystem.remove("web", Progress())
    assert filesystem.root.read("copy/inner/caf\udce9", limit=99) == b"content"


def test_clone_never_replaces(filesystem: FileSystem, cloner: Cloner, stranger: int) -> None:
    furnish(filesystem, stranger)
    filesystem.create("copy", item(0o700))
    with pytest.raises(FileExistsError):
        cloner.clone("web", "copy", item(0o777), Progress())
    assert attributes(filesystem, "copy")[0] == 0o700
    assert filesystem.root.names("copy") == []


def test_cloning_what_is_missing_is_refused_and_makes_nothing(filesystem: FileSystem, cloner: Cloner) -> None:
    with pytest.raises(FileNotFoundError):
        cloner.clone("web", "c/d/copy", item(), Progress())
    assert contents(filesystem) == []


def test_cancelled_clone_can_be_removed_and_made_again(
    filesystem: FileSystem, cloner: Cloner, stranger: int
) -> None:
    furnish(filesystem, stranger)
    progress = Progress()
    progress.cancel()
    with pytest.raises(CancelledError):
        cloner.clone("web", "copy", item(), progress)
    filesystem.remove("copy", Progress())
    cloner.clone("web", "copy", item(), Progress())
    assert filesystem.root.names("copy/inner") == ["caf\udce9"]


def test_measuring_counts_the_item_alone(filesystem: FileSystem, measurer: Measurer, stranger: int) -> None:
    furnish(filesystem, stranger)
    before = measurer.measure("web", Progress())
    filesystem.create("db", item(0o755))
    put(filesystem, "db/large", bytes(1 << 20))
    put(filesystem, "web/large", bytes(1 << 20))
    filesystem.root.sync()  # zfs counts what it has written down
    after = measurer.measure("web", Progress())
    assert after.inodes == before.inodes + 1 == 4
    assert (1 << 20) <= after.allocation - before.allocation < (2 << 20)


# Snapshots.


@pytest.fixture
def snapshotter(filesystem: FileSystem) -> Snapshotter:
    if not isinstance(filesystem, Snapshotter):
        assert "snapshot" not in usable(filesystem)
        pytest.skip(f"{filesystem.name} has no snapshots")
    return filesystem


def test_snapshot_holds_what_the_item_held(
    filesystem: FileSystem, snapshotter: Snapshotter, stranger: int
) -> None:
    furnish(filesystem, stranger)
    snapshotter.snapshot("web", "kept", Progress())
    filesystem.root.write("web/inner/caf\udce9", b"changed", replace=True, durable=False)
    put(filesystem, "web/more")
    kept = held(filesystem, "kept")
    assert attributes(filesystem, kept) == (0o750, stranger, stranger)
    assert attributes(filesystem, f"{kept}/inner") == (0o2711, stranger, stranger)
    assert filesystem.root.names(kept) == ["inner"]
    assert filesystem.root.read(f"{kept}/inner/caf\udce9", limit=99) == b"content"


def test_snapshot_outlives_its_item_and_can_be_removed(
    filesystem: FileSystem, snapshotter: Snapshotter, stranger: int
) -> None:
    furnish(filesystem, stranger)
    snapshotter.snapshot("web", "kept", Progress())
    filesystem.remove("web", Progress())
    kept = held(filesystem, "kept")
    assert contents(filesystem) == ["kept"]
    assert filesystem.root.read(f"{kept}/inner/caf\udce9", limit=99) == b"content"
    filesystem.remove("kept", Progress())
    assert contents(filesystem) == []


def test_snapshot_moves_into_another_directory_and_is_removed_there(
    filesystem: FileSystem, snapshotter: Snapshotter, stranger: int
) -> None:
    furnish(filesystem, stranger)
    snapshotter.snapshot("web", "kept", Progress())
    snapshotter.freeze("web")
    for name in ("kept", "web"):
        filesystem.move(name, f"purge/{name}")
        kept = held(filesystem, f"purge/{name}")
        assert filesystem.root.read(f"{kept}/inner/caf\udce9", limit=99) == b"content"
    filesystem.remove("purge", Progress())
    assert contents(filesystem) == []


def test_snapshots_in_one_directory_are_removed_with_it(
    filesystem: FileSystem, snapshotter: Snapshotter, stranger: int
) -> None:
    furnish(filesystem, stranger)
    filesystem.root.make_directory("all", mode=0o700)
    for number in range(3):
        snapshotter.snapshot("web", f"all/{number}", Progress())
    filesystem.remove("all", Progress())
    assert contents(filesystem) == ["web"]


def test_snapshot_never_replaces(filesystem: FileSystem, snapshotter: Snapshotter, stranger: int) -> None:
    furnish(filesystem, stranger)
    snapshotter.snapshot("web", "kept", Progress())
    filesystem.root.write("web/inner/caf\udce9", b"changed", replace=True, durable=False)
    with pytest.raises(FileExistsError):
        snapshotter.snapshot("web", "kept", Progress())
    kept = held(filesystem, "kept")
    assert filesystem.root.read(f"{kept}/inner/caf\udce9", limit=99) == b"content"


def test_clone_of_a_snapshot_is_writable(
    filesystem: FileSystem, cloner: Cloner, snapshotter: Snapshotter, stranger: int
) -> None:
    furnish(filesystem, stranger)
    snapshotter.snapshot("web", "kept", Progress())
    cloner.clone("kept", "copy", item(0o700), Progress())
    put(filesystem, "copy/inner/new")
    assert attributes(filesystem, "copy") == (0o700, stranger, stranger)
    assert filesystem.root.names(f"{held(filesystem, 'kept')}/inner") == ["caf\udce9"]


def test_frozen_item_serves_as_a_snapshot(
    filesystem: FileSystem, cloner: Cloner, snapshotter: Snapshotter, stranger: int
) -> None:
    furnish(filesystem, stranger)
    for _ in range(2):
        snapshotter.freeze("web")
    cloner.clone("web", "copy", item(), Progress())
    put(filesystem, "copy/inner/new")
    filesystem.remove("web", Progress())
    assert contents(filesystem) == ["copy"]


def test_directory_is_told_from_others_wherever_it_lies(filesystem: FileSystem, stranger: int) -> None:
    furnish(filesystem, stranger)
    filesystem.create("db", item(0o755))
    before = filesystem.identify("web")
    assert before != filesystem.identify("db")
    filesystem.move("web", "customers/web")
    assert filesystem.identify("customers/web") == before


def test_clone_is_told_from_its_origin(filesystem: FileSystem, cloner: Cloner, stranger: int) -> None:
    furnish(filesystem, stranger)
    cloner.clone("web", "copy", item(), Progress())
    assert filesystem.identify("copy") != filesystem.identify("web")


# Limits and usage, where there are any.


def test_usage_is_counted_at_once_and_for_many_in_one_pass(filesystem: FileSystem) -> None:
    if "usage" not in usable(filesystem):
        assert next(one.reason for one in filesystem.features() if one.name == "usage")
        return
    assert isinstance(filesystem, Usage)
    counter: Usage = filesystem
    for name in ("web", "db"):
        filesystem.create(name, item(0o755))
    before = counter.usage("web")
    put(filesystem, "web/large", bytes(1 << 20))
    filesystem.root.sync()
    # Some count a moment late, which their features tell.
    eventually(lambda: counter.usage("web").allocation - before.allocation >= 1 << 20, what="it is counted")
    after = counter.usage("web")
    assert (1 << 20) <= after.allocation - before.allocation < (2 << 20)
    both = counter.usages(["web", "missing", "db"])
    assert both.keys() == {"web", "db"}
    assert both["web"] == after
    assert both["db"].allocation < 1 << 20
