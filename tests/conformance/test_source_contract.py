"""The contract of `Source`, over every source."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest

from conformance.cases import SourceCase
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.source import BuildMode, Growable, Recognising, Unmounting
from fspoolfs.errors import (
    BusyError,
    FspoolError,
    InvalidError,
    NotEmptyError,
    NotFoundError,
    UnsupportedError,
)
from fspoolfs.model.definitions import PoolType
from fspoolfs.progress import Progress

#: Bytes by which a root grows.
GROWTH = 192 << 20

#: fspoolfs' own directories in a root.
LAYOUT = [".fspool", ".fspool/items", ".fspool/trash", ".fspool/staging", ".fspool/purge"]


def build(case: SourceCase) -> None:
    case.source.build(case.definition, BuildMode.NO_OVERWRITE, Progress())


def attach(case: SourceCase) -> RootDirectory:
    return case.source.attach(case.definition, Progress())


def delete(case: SourceCase, root: RootDirectory | None = None) -> None:
    """As the service does it: what is deleted is not attached, and nothing is open that was mounted."""
    if root is not None and isinstance(case.source, Unmounting):
        root.close()
    case.source.detach(case.definition, force=False)
    case.source.delete(case.definition)


def put(root: RootDirectory, path: str) -> None:
    root.write(path, b"data", replace=False, durable=False)


def lay_out(root: RootDirectory) -> None:
    for path in LAYOUT:
        root.make_directory(path, mode=0o700)
    put(root, ".fspool/pool.xml")
    put(root, ".fspool/journal")


@pytest.fixture
def built(case: SourceCase) -> SourceCase:
    build(case)
    return case


# Checking.


def test_usable_source_accepts_its_own_definition(case: SourceCase) -> None:
    if not case.source.unusable():
        case.source.check(case.definition)


def test_source_serves_a_type_of_pools(case: SourceCase) -> None:
    assert isinstance(case.source.type, PoolType)
    assert case.source.type is case.definition.type


@pytest.mark.parametrize("target", [None, "", "relative/path"])
def test_target_must_be_an_absolute_path(case: SourceCase, target: str | None) -> None:
    with pytest.raises(InvalidError, match=r"pool tank: .*absolute path"):
        case.source.check(replace(case.definition, target=target))


def test_identity_is_that_of_the_storage_not_of_the_pool(case: SourceCase) -> None:
    same = replace(case.definition, name="other")
    assert case.source.identity(same) == case.source.identity(case.definition)


def test_identity_does_not_change_when_the_pool_is_built(case: SourceCase) -> None:
    before = case.source.identity(case.definition)
    build(case)
    assert case.source.identity(case.definition) == before


# Building and attaching.


def test_pool_that_was_not_built_cannot_be_attached(case: SourceCase) -> None:
    with pytest.raises(NotFoundError, match=r"pool tank: .*build the pool first"):
        attach(case)


def test_attached_root_works_and_names_its_place(built: SourceCase) -> None:
    root = attach(built)
    put(root, "file")
    assert root.read("file", limit=9) == b"data"
    assert root.location("file").startswith("/")
    root.close()


def test_building_again_keeps_what_is_there(built: SourceCase) -> None:
    root = attach(built)
    put(root, "file")
    root.set_attributes("", mode=0o1777, owner=None, group=None)
    before = root.stat("")
    build(built)
    build(built)
    assert attach(built).names("") == ["file"]
    # The client of GlusterFS has two numbers for the root of a mount.
    assert root.stat("")._replace(inode=before.inode) == before
    root.close()


def test_attaching_again_gives_the_same_root(built: SourceCase) -> None:
    first, second = attach(built), attach(built)
    put(first, "file")
    assert second.names("") == ["file"]
    assert second.stat("").inode == first.stat("").inode


@pytest.mark.parametrize("force", [False, True])
def test_detaching_keeps_the_data_and_can_be_repeated(built: SourceCase, force: bool) -> None:
    root = attach(built)
    put(root, "file")
    root.close()
    built.source.detach(built.definition, force=force)
    built.source.detach(built.definition, force=force)
    assert attach(built).names("") == ["file"]


def test_attached_root_is_verified_until_it_is_gone(built: SourceCase) -> None:
    root = attach(built)
    built.source.verify(built.definition, root)
    delete(built, root)
    with pytest.raises(FspoolError, match="no longer"):
        built.source.verify(built.definition, root)


def test_root_is_not_mistaken_for_one_that_took_its_place(built: SourceCase) -> None:
    root = attach(built)
    delete(built, root)
    build(built)
    with pytest.raises(FspoolError, match="no longer"):
        built.source.verify(built.definition, root)
    built.source.verify(built.definition, attach(built))


# What some sources can beside.


def test_root_that_can_grow_keeps_what_it_holds_and_does_not_shrink_by_growing(built: SourceCase) -> None:
    source, definition = built.source, built.definition
    if not isinstance(source, Growable):
        return
    root = attach(built)
    put(root, "file")
    size, before = source.size(definition), root.space().capacity
    assert size is not None
    try:
        for _ in range(2):
            source.grow(definition, root, size + GROWTH, Progress())
    except UnsupportedError:
        assert (source.size(definition), root.space().capacity) == (size, before)
    else:
        assert source.size(definition) == size + GROWTH
        assert root.space().capacity > before
    with pytest.raises(UnsupportedError):
        source.grow(definition, root, size - GROWTH, Progress())
    assert root.names("") == ["file"]


def test_storage_that_tells_whose_it_is_does_so_from_the_build_on(case: SourceCase) -> None:
    source, definition = case.source, case.definition
    if not isinstance(source, Recognising):
        return
    assert source.carried(definition) is None
    build(case)
    assert source.carried(definition) == definition.uuid
    assert source.carried(replace(definition, name="other")) is None


def test_nobody_but_its_users_holds_a_root(built: SourceCase) -> None:
    source, definition = built.source, built.definition
    if not isinstance(source, Unmounting):
        return
    root = attach(built)
    assert list(source.holders(definition)) == []
    with subprocess.Popen(["sleep", "60"], cwd=root.path) as process:
        assert [use.pid for use in source.holders(definition)] == [process.pid]
        root.close()
        with pytest.raises(BusyError, match=f"process {process.pid}"):
            source.detach(definition, force=False)
        source.detach(definition, force=True)
        process.kill()
    assert list(source.holders(definition)) == []


# Deleting.


def test_deleting_undoes_the_build_and_can_be_repeated(built: SourceCase) -> None:
    root = attach(built)
    lay_out(root)
    for _ in range(2):
        delete(built, root)
        with pytest.raises(NotFoundError):
            attach(built)
    build(built)
    assert attach(built).names("") == []


def test_pool_that_was_never_built_can_be_deleted(case: SourceCase) -> None:
    case.source.delete(case.definition)


def test_deletion_that_was_interrupted_is_finished_by_repeating_it(built: SourceCase) -> None:
    root = attach(built)
    lay_out(root)
    root.remove_tree(".fspool/items", Progress())
    root.remove_file(".fspool/pool.xml")
    delete(built, root)
    with pytest.raises(NotFoundError):
        attach(built)


def test_deleting_is_refused_while_something_is_left_and_names_three(built: SourceCase) -> None:
    root = attach(built)
    lay_out(root)
    for name in ("d", "b", "c", "a", "e"):
        root.make_directory(name, mode=0o755)
    with pytest.raises(NotEmptyError, match=r"pool tank: .*'a', 'b', 'c' and 2 more"):
        delete(built, root)
    root = attach(built)
    assert sorted(root.names("")) == [".fspool", "a", "b", "c", "d", "e"]
    assert root.read(".fspool/pool.xml", limit=9) == b"data"


def test_refusal_shows_odd_names_on_one_line(built: SourceCase) -> None:
    root = attach(built)
    put(root, "new\nline \udce9")
    with pytest.raises(NotEmptyError) as caught:
        delete(built, root)
    assert r"'new\nline \udce9'" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("left", [".fspool/items/web.xml", ".fspool/trash/1.xml"])
def test_deleting_is_refused_while_an_item_is_known(built: SourceCase, left: str) -> None:
    root = attach(built)
    lay_out(root)
    put(root, left)
    with pytest.raises(NotEmptyError, match=left.rpartition("/")[2]):
        delete(built, root)
    root = attach(built)
    assert root.read(left, limit=9) == b"data"


def test_rubbish_and_temporary_files_do_not_keep_a_pool_from_being_deleted(built: SourceCase) -> None:
    root = attach(built)
    lay_out(root)
    put(root, ".fspool/items/.5f3a")
    root.make_directory(".fspool/purge/1", mode=0o755)
    put(root, ".fspool/purge/1/file")
    delete(built, root)
    with pytest.raises(NotFoundError):
        attach(built)
