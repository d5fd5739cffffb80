"""The contract of `RootDirectory`, over every root."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.zfs_root import ZfsRoot
from fspoolfs.errors import CancelledError
from fspoolfs.model.infos import FileInfo
from fspoolfs.progress import Progress
from fspoolfs.system.paths import HostRoot

#: Names that the kernel takes and careless programs stumble over.
ODD_NAMES = ["caf\udce9", "two words", "new\nline", "-rf", "..x", "ünï", "x" * 255]


#: FUSE_SUPER_MAGIC and NFS_SUPER_MAGIC, include/uapi/linux/magic.h
FUSE, NFS, CEPH = 0x65735546, 0x6969, 0x00C36400


def is_over_fuse(root: RootDirectory) -> bool:
    return isinstance(root, HostRoot) and root.filesystem_magic() == FUSE


def is_remote(root: RootDirectory) -> bool:
    return is_over_fuse(root) or (isinstance(root, HostRoot) and root.filesystem_magic() in (NFS, CEPH))


def put(root: RootDirectory, path: str, data: bytes = b"data") -> None:
    root.write(path, data, replace=False, durable=False)


def get(root: RootDirectory, path: str) -> bytes:
    return root.read(path, limit=1 << 20)


def permissions(root: RootDirectory, path: str) -> tuple[int, int, int]:
    info = root.stat(path)
    return stat.S_IMODE(info.mode), info.owner, info.group


class Meddling(Progress):
    """Does something to the tree as soon as the work on it has begun to report."""

    def __init__(self, meddle: Callable[[], None]) -> None:
        super().__init__()
        self._meddle: Callable[[], None] | None = meddle

    def advance(self, count: int = 1) -> None:
        meddle, self._meddle = self._meddle, None
        if meddle is not None:
            meddle()
        super().advance(count)


@pytest.fixture
def furnished(root: RootDirectory) -> RootDirectory:
    """A root that holds the file `file`, the empty directory `empty` and `full` with `full/inner`."""
    put(root, "file")
    root.make_directory("empty", mode=0o755)
    root.make_directory("full", mode=0o755)
    put(root, "full/inner")
    return root


# What fails, and how.

Call = Callable[[RootDirectory], object]

FAILURES: dict[str, tuple[int, Call]] = {
    "trust what is missing": (errno.ENOENT, lambda r: r.trust("missing")),
    "trust a file": (errno.ENOTDIR, lambda r: r.trust("file")),
    "stat what is missing": (errno.ENOENT, lambda r: r.stat("missing")),
    "stat below a file": (errno.ENOTDIR, lambda r: r.stat("file/x")),
    "list what is missing": (errno.ENOENT, lambda r: r.names("missing")),
    "list a file": (errno.ENOTDIR, lambda r: r.names("file")),
    "look into what is missing": (errno.ENOENT, lambda r: list(r.entries("missing"))),
    "look into a file": (errno.ENOTDIR, lambda r: list(r.entries("file"))),
    "read what is missing": (errno.ENOENT, lambda r: r.read("missing", limit=9)),
    "read a directory": (errno.EISDIR, lambda r: r.read("empty", limit=9)),
    "read above the limit": (errno.EFBIG, lambda r: r.read("file", limit=3)),
    "create what is there": (errno.EEXIST, lambda r: put(r, "file")),
    "create over a directory": (errno.EEXIST, lambda r: put(r, "empty")),
    "create without parent": (errno.ENOENT, lambda r: put(r, "missing/x")),
    "create below a file": (errno.ENOTDIR, lambda r: put(r, "file/x")),
    "create a name of 256 bytes": (errno.ENAMETOOLONG, lambda r: put(r, "x" * 256)),
    "replace a directory": (errno.EISDIR, lambda r: r.write("empty", b"", replace=True, durable=False)),
    "replace without parent": (errno.ENOENT, lambda r: r.write("missing/x", b"", replace=True, durable=True)),
    "make what is there": (errno.EEXIST, lambda r: r.make_directory("empty", mode=0o755)),
    "make over a file": (errno.EEXIST, lambda r: r.make_directory("file", mode=0o755)),
    "make without parent": (errno.ENOENT, lambda r: r.make_directory("missing/x", mode=0o755)),
    "make below a file": (errno.ENOTDIR, lambda r: r.make_directory("file/x", mode=0o755)),
    "make the root": (errno.EINVAL, lambda r: r.make_directory("", mode=0o755)),
    "leave the root": (errno.EINVAL, lambda r: r.make_directory("..", mode=0o755)),
    "pass outside the root": (errno.EINVAL, lambda r: r.make_directory("empty/../x", mode=0o755)),
    "name an absolute path": (errno.EINVAL, lambda r: r.make_directory("/x", mode=0o755)),
    "name a NUL": (errno.EINVAL, lambda r: r.make_directory("x\0y", mode=0o755)),
    "change what is missing": (
        errno.ENOENT,
        lambda r: r.set_attributes("missing", mode=0o700, owner=None, group=None),
    ),
    "change a file": (errno.ENOTDIR, lambda r: r.set_attributes("file", mode=0o700, owner=None, group=None)),
    "rename what is missing": (errno.ENOENT, lambda r: r.rename("missing", "x")),
    "rename what is missing to what is there": (errno.ENOENT, lambda r: r.rename("missing", "empty")),
    "rename to what is there": (errno.EEXIST, lambda r: r.rename("full", "empty")),
    "rename to itself": (errno.EEXIST, lambda r: r.rename("full", "full")),
    "rename over a file": (errno.EEXIST, lambda r: r.rename("full", "file")),
    "rename without parent": (errno.ENOENT, lambda r: r.rename("full", "missing/x")),
    "rename below a file": (errno.ENOTDIR, lambda r: r.rename("full", "file/x")),
    "rename into itself": (errno.EINVAL, lambda r: r.rename("full", "full/x")),
    "unlink what is missing": (errno.ENOENT, lambda r: r.remove_file("missing")),
    "unlink a directory": (errno.EISDIR, lambda r: r.remove_file("empty")),
    "rmdir what is missing": (errno.ENOENT, lambda r: r.remove_directory("missing")),
    "rmdir a file": (errno.ENOTDIR, lambda r: r.remove_directory("file")),
    "rmdir what holds something": (errno.ENOTEMPTY, lambda r: r.remove_directory("full")),
    "remove a missing tree": (errno.ENOENT, lambda r: r.remove_tree("missing", Progress())),
    "copy what is missing": (errno.ENOENT, lambda r: r.copy_tree("missing", "x", Progress())),
    "copy a file": (errno.ENOTDIR, lambda r: r.copy_tree("file", "x", Progress())),
    "copy to what is there": (errno.EEXIST, lambda r: r.copy_tree("full", "empty", Progress())),
    "copy without parent": (errno.ENOENT, lambda r: r.copy_tree("full", "missing/x", Progress())),
    "copy into itself": (errno.EINVAL, lambda r: r.copy_tree("full", "full/x", Progress())),
    "copy onto itself": (errno.EINVAL, lambda r: r.copy_tree("full", "full", Progress())),
    "measure what is missing": (errno.ENOENT, lambda r: r.measure("missing", Progress())),
    "measure a file": (errno.ENOTDIR, lambda r: r.measure("file", Progress())),
    "open a directory as a log": (errno.EISDIR, lambda r: r.open_log("empty", size=512)),
    "open a log without parent": (errno.ENOENT, lambda r: r.open_log("missing/x", size=512)),
}


@pytest.mark.parametrize("what", FAILURES)
def test_failure_has_the_errno_of_the_system_call_and_changes_nothing(
    furnished: RootDirectory, what: str
) -> None:
    number, call = FAILURES[what]
    numbers = {number}
    if number == errno.ENAMETOOLONG and is_over_fuse(furnished):
        numbers.add(errno.EBADMSG)  # what sshfs makes of an answer without a reason
    with pytest.raises(OSError, match="|".join(map(os.strerror, numbers))) as caught:
        call(furnished)
    assert caught.value.errno in numbers
    assert sorted(furnished.names("")) == ["empty", "file", "full"]
    assert furnished.names("full") == ["inner"]
    assert furnished.names("empty") == []
    assert get(furnished, "file") == b"data"


# Looking.


def test_root_is_a_directory_with_a_lasting_inode_number(root: RootDirectory) -> None:
    before = root.stat("")
    put(root, "file")
    assert stat.S_ISDIR(before.mode)
    assert root.stat("").inode == before.inode


def test_entries_tell_of_each_entry_what_stat_tells(furnished: RootDirectory) -> None:
    entries = dict(furnished.entries(""))
    assert sorted(entries) == sorted(furnished.names(""))
    assert all(info == furnished.stat(name) for name, info in entries.items())


def test_location_is_the_path_on_the_host(root: RootDirectory) -> None:
    assert root.location("") == root.path
    assert root.location("a/b") == f"{root.path}/a/b"


def test_space_adds_up(root: RootDirectory) -> None:
    space = root.space()
    assert 0 < space.available <= space.capacity
    assert space.allocation + space.available <= space.capacity


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_survives_every_operation(root: RootDirectory, name: str) -> None:
    root.make_directory(name, mode=0o755)
    put(root, f"{name}/{name}", b"odd")
    root.make_directory("other", mode=0o755)
    root.rename(name, f"other/{name}")
    root.copy_tree("other", "copy", Progress())
    assert root.names("copy") == [name]
    assert [found for found, _ in root.entries(f"copy/{name}")] == [name]
    assert get(root, f"copy/{name}/{name}") == b"odd"
    root.remove_file(f"other/{name}/{name}")
    root.remove_directory(f"other/{name}")
    root.remove_tree("copy", Progress())
    assert root.names("") == ["other"]


@pytest.mark.parametrize("mode", [0o1777, 0o770])
def test_directory_that_others_may_write_to_is_not_trusted(root: RootDirectory, mode: int) -> None:
    root.make_directory("shared", mode=mode)
    with pytest.raises(PermissionError):
        root.trust("shared")


def test_trusted_directory_behaves_like_any_other(furnished: RootDirectory) -> None:
    furnished.trust("full")
    furnished.trust("full")
    furnished.write("full/inner", b"new", replace=True, durable=True)
    furnished.rename("full/inner", "empty/inner")
    furnished.rename("empty/inner", "full/back")
    assert furnished.names("full") == ["back"]
    assert get(furnished, "full/back") == b"new"
    furnished.remove_tree("full", Progress())
    assert sorted(furnished.names("")) == ["empty", "file"]


# Small files.


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("replace", [False, True])
def test_written_file_is_private_and_whole(root: RootDirectory, replace: bool, durable: bool) -> None:
    root.write("file", b"x" * 5000, replace=replace, durable=durable)
    assert permissions(root, "file") == (0o600, os.geteuid(), os.getegid())
    assert root.read("file", limit=5000) == b"x" * 5000
    assert root.names("") == ["file"]


@pytest.mark.parametrize("durable", [False, True])
def test_replacing_puts_a_new_file_in_the_place_of_the_old(root: RootDirectory, durable: bool) -> None:
    put(root, "file", b"a long old content")
    old = root.stat("file").inode
    root.write("file", b"new", replace=True, durable=durable)
    assert get(root, "file") == b"new"
    assert root.stat("file").inode != old
    assert root.names("") == ["file"]


def test_empty_file_can_be_written_and_read(root: RootDirectory) -> None:
    put(root, "empty", b"")
    assert root.read("empty", limit=0) == b""


def test_of_many_writers_of_a_new_file_one_wins_and_its_content_is_whole(root: RootDirectory) -> None:
    start = threading.Barrier(4)
    winners: list[bytes] = []

    def write(content: bytes) -> None:
        start.wait()
        try:
            put(root, "file", content)
        except FileExistsError:
            return
        winners.append(content)

    threads = [threading.Thread(target=write, args=(b"%d" % number * 9000,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert winners == [get(root, "file")]


# Directories.


@pytest.mark.usefixtures("strict_umask")
@pytest.mark.parametrize("mode", [0o000, 0o700, 0o755, 0o777, 0o1777, 0o2770, 0o7777])
def test_directory_has_exactly_the_mode_that_was_asked_for(root: RootDirectory, mode: int) -> None:
    root.make_directory("directory", mode=mode)
    assert permissions(root, "directory") == (mode, os.geteuid(), os.getegid())


def test_attributes_that_are_not_named_stay(root: RootDirectory, stranger: int) -> None:
    root.make_directory("directory", mode=0o750)
    own = (os.geteuid(), os.getegid())
    root.set_attributes("directory", mode=0o1777, owner=None, group=None)
    assert permissions(root, "directory") == (0o1777, *own)
    root.set_attributes("directory", mode=None, owner=stranger, group=None)
    assert permissions(root, "directory") == (0o1777, stranger, own[1])
    root.set_attributes("directory", mode=0o2700, owner=None, group=stranger)
    assert permissions(root, "directory") == (0o2700, stranger, stranger)


def test_attributes_of_the_root_itself_can_be_set(root: RootDirectory) -> None:
    root.set_attributes("", mode=0o1777, owner=None, group=None)
    assert permissions(root, "")[0] == 0o1777


def test_rename_moves_a_directory_with_all_it_holds(furnished: RootDirectory) -> None:
    inode = furnished.stat("full").inode
    furnished.rename("full", "empty/moved")
    assert furnished.stat("empty/moved").inode == inode
    assert get(furnished, "empty/moved/inner") == b"data"
    assert sorted(furnished.names("")) == ["empty", "file"]


def test_of_many_makers_of_a_directory_one_wins(root: RootDirectory) -> None:
    start = threading.Barrier(4)
    outcomes: list[int] = []

    def make() -> None:
        start.wait()
        try:
            root.make_directory("directory", mode=0o755)
        except FileExistsError:
            outcomes.append(errno.EEXIST)
        else:
            outcomes.append(0)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [0, errno.EEXIST, errno.EEXIST, errno.EEXIST]


# Trees.


def plant(root: RootDirectory, path: str, *, directories: int = 4, files: int = 50) -> None:
    """A tree of `directories` with `files` each."""
    root.make_directory(path, mode=0o755)
    for directory in range(directories):
        root.make_directory(f"{path}/{directory}", mode=0o755)
        for file in range(files):
            put(root, f"{path}/{directory}/{file}")


def test_tree_is_removed_whole_and_alone(furnished: RootDirectory) -> None:
    plant(furnished, "full/tree")
    furnished.remove_tree("full", Progress())
    assert sorted(furnished.names("")) == ["empty", "file"]
    with pytest.raises(FileNotFoundError):
        furnished.remove_tree("full", Progress())


def test_removal_copes_with_what_vanishes_meanwhile(root: RootDirectory) -> None:
    plant(root, "tree")

    def meddle() -> None:
        for name in root.names("tree"):
            root.remove_tree(f"tree/{name}", Progress())

    root.remove_tree("tree", Meddling(meddle))
    assert root.names("") == []


def test_cancelled_removal_can_be_taken_up_again(root: RootDirectory) -> None:
    plant(root, "tree")
    progress = Progress()
    progress.cancel()
    with pytest.raises(CancelledError):
        root.remove_tree("tree", progress)
    assert root.names("") == ["tree"]
    root.remove_tree("tree", Progress())
    assert root.names("") == []


def test_copy_holds_the_same_with_the_same_attributes(root: RootDirectory, stranger: int) -> None:
    root.make_directory("source", mode=0o755)
    root.make_directory("source/inner", mode=0o755)
    put(root, "source/inner/file", b"content" * 1000)
    root.set_attributes("source/inner", mode=0o2750, owner=stranger, group=stranger)
    root.set_attributes("source", mode=0o1711, owner=stranger, group=None)
    root.copy_tree("source", "copy", Progress())
    for inside in ("", "/inner", "/inner/file"):
        old, new = root.stat(f"source{inside}"), root.stat(f"copy{inside}")
        assert permissions(root, f"copy{inside}") == permissions(root, f"source{inside}")
        assert new.inode != old.inode
    for inside in ("", "/inner"):
        assert root.stat(f"copy{inside}").mtime_ns == root.stat(f"source{inside}").mtime_ns
    assert get(root, "copy/inner/file") == b"content" * 1000


def test_copy_is_independent_of_its_source(furnished: RootDirectory) -> None:
    furnished.copy_tree("full", "copy", Progress())
    furnished.write("full/inner", b"changed", replace=True, durable=False)
    put(furnished, "full/more")
    assert furnished.names("copy") == ["inner"]
    assert get(furnished, "copy/inner") == b"data"


def test_cancelled_copy_leaves_its_source_alone(root: RootDirectory) -> None:
    plant(root, "source")
    progress = Progress()
    progress.cancel()
    with pytest.raises(CancelledError):
        root.copy_tree("source", "copy", progress)
    assert len(root.names("source")) == 4
    with suppress(FileNotFoundError):  # it may not even have begun
        root.remove_tree("copy", Progress())
    assert root.names("") == ["source"]


def test_copy_fills_an_empty_directory_that_is_there(furnished: RootDirectory) -> None:
    before = furnished.stat("empty")
    furnished.copy_tree("full", "empty", Progress(), existing=True)
    after = furnished.stat("empty")
    assert after.inode == before.inode
    assert permissions(furnished, "empty") == permissions(furnished, "full")
    assert after.mtime_ns == furnished.stat("full").mtime_ns
    assert get(furnished, "empty/inner") == b"data"


def test_copy_fills_no_directory_that_holds_something(furnished: RootDirectory) -> None:
    furnished.make_directory("other", mode=0o700)
    furnished.make_directory("other/inner", mode=0o700)
    with pytest.raises(OSError, match="not empty"):
        furnished.copy_tree("full", "other", Progress(), existing=True)
    assert furnished.names("other") == ["inner"]
    assert furnished.names("other/inner") == []


def test_exchanged_directories_keep_what_they_hold(furnished: RootDirectory) -> None:
    furnished.make_directory("empty/deep", mode=0o700)
    inodes = [furnished.stat(path).inode for path in ("full", "empty/deep")]
    if is_remote(furnished) or isinstance(furnished, ZfsRoot):
        # Nothing over FUSE can, NFS and CephFS have no word for it, and OpenZFS had none before 2.2.
        try:
            furnished.exchange("full", "empty/deep")
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            assert [furnished.stat(path).inode for path in ("full", "empty/deep")] == inodes
            return
        furnished.exchange("empty/deep", "full")
    furnished.exchange("full", "empty/deep")
    assert [furnished.stat(path).inode for path in ("empty/deep", "full")] == inodes
    assert furnished.names("empty/deep") == ["inner"]
    assert furnished.names("full") == []


def test_exchange_needs_both_and_neither_inside_the_other(furnished: RootDirectory) -> None:
    with pytest.raises(FileNotFoundError):
        furnished.exchange("full", "missing")
    furnished.make_directory("empty/deep", mode=0o700)
    with pytest.raises(OSError, match="Invalid argument"):
        furnished.exchange("empty", "empty/deep")
    assert furnished.names("empty") == ["deep"]


def test_synced_directory_looks_as_before(furnished: RootDirectory) -> None:
    furnished.rename("full", "empty/full")
    furnished.sync_directory("empty")
    assert furnished.names("empty") == ["full"]
    with pytest.raises(FileNotFoundError):
        furnished.sync_directory("missing")


def test_measure_counts_what_a_directory_holds_and_itself(root: RootDirectory) -> None:
    plant(root, "tree", directories=2, files=3)
    before = root.measure("tree", Progress())
    put(root, "tree/0/large", bytes(1 << 20))
    root.sync()  # zfs counts what it has written down
    after = root.measure("tree", Progress())
    assert before.inodes == 1 + 2 + 6
    assert after.inodes == before.inodes + 1
    assert after.allocation >= before.allocation + (1 << 20)
    assert root.measure("", Progress()).inodes == after.inodes + 1


def test_sync_changes_nothing_that_can_be_seen(furnished: RootDirectory) -> None:
    def seen() -> dict[str, FileInfo]:
        # The size of a directory is the storage's business: CephFS tells what it holds, a moment later.
        return {
            name: info._replace(size=0) if stat.S_ISDIR(info.mode) else info
            for name, info in furnished.entries("")
        }

    before = seen()
    furnished.sync()
    assert seen() == before
