"""A pool's root on the host: what its operations do, and what nobody can make them do."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fspoolfs.progress import Progress
from fspoolfs.system import files
from fspoolfs.system.paths import HostRoot


@pytest.fixture
def masked() -> Iterator[None]:
    """A umask that takes away nearly everything."""
    old = os.umask(0o077)
    yield
    os.umask(old)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def write(root: HostRoot, path: str, data: bytes = b"data", *, replace: bool = False) -> None:
    root.write(path, data, replace=replace, durable=False)


#: Every operation on one path.
OPERATIONS: dict[str, Callable[[HostRoot, str], object]] = {
    "stat": lambda root, path: root.stat(path),
    "entries": lambda root, path: list(root.entries(path)),
    "names": lambda root, path: root.names(path),
    "read": lambda root, path: root.read(path, limit=100),
    "write": lambda root, path: write(root, path),
    "replace": lambda root, path: write(root, path, replace=True),
    "make_directory": lambda root, path: root.make_directory(path, mode=0o700),
    "set_attributes": lambda root, path: root.set_attributes(path, mode=0o777, owner=None, group=None),
    "rename": lambda root, path: root.rename(path, "elsewhere"),
    "rename to": lambda root, path: root.rename("file", path),
    "remove_file": lambda root, path: root.remove_file(path),
    "remove_directory": lambda root, path: root.remove_directory(path),
    "remove_tree": lambda root, path: root.remove_tree(path, Progress()),
    "copy_tree": lambda root, path: root.copy_tree(path, "elsewhere", Progress()),
    "copy_tree to": lambda root, path: root.copy_tree("directory", path, Progress()),
    "measure": lambda root, path: root.measure(path, Progress()),
    "open_log": lambda root, path: root.open_log(path, size=4096),
    "trust": lambda root, path: root.trust(path),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    "path", ["link/precious", "link/new", "deep/link/precious", "../victim/precious", "deep/../../victim/new"]
)
def test_no_operation_leaves_the_root_by_a_link_or_by_dots(
    base: Path, root: HostRoot, operation: str, path: str
) -> None:
    (base / "deep").mkdir()
    (base / "directory").mkdir()
    (base / "file").touch()
    (base / "link").symlink_to(base.parent / "victim")
    (base / "deep/link").symlink_to("../../victim")
    with pytest.raises(OSError, match=r".") as caught:
        OPERATIONS[operation](root, path)
    assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR, errno.EINVAL, errno.EXDEV)
    assert os.listdir(base.parent / "victim") == ["precious"]
    assert mode_of(base.parent / "victim") == 0o755


@pytest.mark.parametrize(
    "operation", sorted(set(OPERATIONS) - {"stat", "rename", "remove_file", "remove_tree"})
)
def test_no_operation_follows_a_link_at_the_end(base: Path, root: HostRoot, operation: str) -> None:
    (base / "directory").mkdir()
    (base / "file").touch()
    for target in ("victim", "victim/precious", "victim/new"):
        link = base / "link"
        link.unlink(missing_ok=True)
        link.symlink_to(base.parent / target)
        if operation == "replace":  # a rename takes the link's place
            OPERATIONS[operation](root, "link")
            assert not link.is_symlink()
        else:
            with pytest.raises(OSError, match=r".") as caught:
                OPERATIONS[operation](root, "link")
            assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR, errno.EEXIST)
    assert os.listdir(base.parent / "victim") == ["precious"]
    assert (base.parent / "victim/precious").read_text() == "precious"
    assert mode_of(base.parent / "victim") == 0o755


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("path", ["/", "/etc", "a/", "a/.", "a/..", "..", ".", "a\0b", "/a/b"])
def test_paths_that_name_no_entry_are_refused(root: HostRoot, operation: str, path: str) -> None:
    with pytest.raises(OSError, match=r".") as caught:
        OPERATIONS[operation](root, path)
    assert caught.value.errno in (errno.EINVAL, errno.ENOENT, errno.EXDEV)


def test_a_directory_swapped_for_a_link_never_leads_out(base: Path, root: HostRoot) -> None:
    """A race: the parent is a directory at one moment and a link to the victim at the next."""
    (base / "swapped").mkdir()
    (base / "evil").symlink_to(base.parent / "victim")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            os.rename(base / "swapped", base / "kept")
            os.rename(base / "evil", base / "swapped")
            os.rename(base / "swapped", base / "evil")
            os.rename(base / "kept", base / "swapped")

    thread = threading.Thread(target=swap)
    thread.start()
    outcomes: set[int] = set()
    try:
        for number in range(500):
            try:
                write(root, f"swapped/f{number}")
                root.make_directory(f"swapped/d{number}", mode=0o777)
                root.set_attributes("swapped", mode=0o701, owner=None, group=None)
                outcomes.add(0)
            except OSError as error:
                outcomes.add(error.errno or -1)
    finally:
        done.set()
        thread.join()
    assert outcomes <= {0, errno.ELOOP, errno.ENOTDIR, errno.ENOENT}
    assert os.listdir(base.parent / "victim") == ["precious"]
    assert mode_of(base.parent / "victim") == 0o755


@pytest.mark.usefixtures("masked")
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o750, 0o2770, 0o000])
def test_a_directory_gets_exactly_its_mode(base: Path, root: HostRoot, mode: int) -> None:
    root.make_directory("d", mode=mode)
    assert mode_of(base / "d") == mode


def test_a_directory_inherits_no_bits_of_its_parent(base: Path, root: HostRoot) -> None:
    os.chmod(base, 0o2755)
    root.make_directory("d", mode=0o755)
    assert mode_of(base / "d") == 0o755


def test_a_directory_that_cannot_get_its_mode_is_not_left_behind(
    base: Path, root: HostRoot, monkeypatch: pytest.MonkeyPatch, masked: None
) -> None:
    def refuse(path: str, mode: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)

    monkeypatch.setattr(os, "chmod", refuse)
    with pytest.raises(PermissionError):
        root.make_directory("d", mode=0o777)
    assert os.listdir(base) == []


def test_making_a_directory_needs_its_parent_and_a_free_name(root: HostRoot) -> None:
    with pytest.raises(FileNotFoundError):
        root.make_directory("a/b", mode=0o755)
    root.make_directory("a", mode=0o755)
    root.make_directory("a/b", mode=0o755)
    with pytest.raises(FileExistsError):
        root.make_directory("a/b", mode=0o755)


def test_attributes_can_be_set_on_a_directory_that_nobody_may_read(base: Path, root: HostRoot) -> None:
    root.make_directory("d", mode=0)
    root.set_attributes("d", mode=0o710, owner=os.geteuid(), group=os.getegid())
    assert mode_of(base / "d") == 0o710
    root.set_attributes("d", mode=None, owner=None, group=None)
    assert mode_of(base / "d") == 0o710
    root.set_attributes("", mode=0o751, owner=None, group=None)
    assert mode_of(base) == 0o751


def test_attributes_are_for_directories_only(base: Path, root: HostRoot) -> None:
    (base / "file").touch(mode=0o600)
    with pytest.raises(NotADirectoryError):
        root.set_attributes("file", mode=0o777, owner=None, group=None)
    assert mode_of(base / "file") == 0o600


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_created_once_and_replaced_whole(base: Path, root: HostRoot, durable: bool) -> None:
    root.make_directory("d", mode=0o700)
    root.write("d/f", b"one", replace=False, durable=durable)
    assert mode_of(base / "d/f") == 0o600
    with pytest.raises(FileExistsError):
        root.write("d/f", b"two", replace=False, durable=durable)
    assert root.read("d/f", limit=10) == b"one"
    root.write("d/f", b"two", replace=True, durable=durable)
    assert root.read("d/f", limit=10) == b"two"
    assert root.names("d") == ["f"]


@pytest.mark.parametrize("replace", [False, True])
def test_a_torn_file_is_taken_away(
    base: Path, root: HostRoot, monkeypatch: pytest.MonkeyPatch, replace: bool
) -> None:
    if replace:
        write(root, "f", b"old")

    def full(fd: int, data: memoryview, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        write(root, "f", b"new", replace=replace)
    assert os.listdir(base) == (["f"] if replace else [])
    assert not replace or (base / "f").read_bytes() == b"old"


def test_a_created_file_whose_name_cannot_be_synced_is_taken_away(
    base: Path, root: HostRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output"):
        root.write("f", b"new", replace=False, durable=True)
    assert os.listdir(base) == []


def test_short_writes_are_continued(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:3], offset))
    with open(base / "f", "wb") as file:
        files.write_all(file.fileno(), b"0123456789", 2)
    assert (base / "f").read_bytes() == b"\0\x000123456789"


def test_reading_is_limited_and_never_waits_for_a_fifo(base: Path, root: HostRoot) -> None:
    write(root, "f", b"x" * 11)
    os.mkfifo(base / "fifo")
    assert root.read("f", limit=11) == b"x" * 11
    for path, number in {"f": errno.EFBIG, "fifo": errno.EINVAL, "absent": errno.ENOENT}.items():
        with pytest.raises(OSError, match=path) as caught:
            root.read(path, limit=10)
        assert caught.value.errno == number


def test_entries_tell_lstat_and_names_survive_any_bytes(base: Path, root: HostRoot) -> None:
    (base / "link").symlink_to("nowhere")
    (base / "file").write_bytes(b"12345")
    strange = b"not utf-8 \xff\n"
    os.mkdir(os.fsencode(base) + b"/" + strange)
    entries = dict(root.entries(""))
    assert set(entries) == set(root.names("")) == {"link", "file", os.fsdecode(strange)}
    assert entries["file"] == root.stat("file")
    assert entries["file"].size == 5
    assert stat.S_ISLNK(entries["link"].mode)
    root.remove_directory(os.fsdecode(strange))


def test_two_listings_of_the_root_do_not_disturb_each_other(base: Path, root: HostRoot) -> None:
    for number in range(50):
        (base / str(number)).touch()
    first = root.entries("")
    names = [next(first)[0]]
    assert len(root.names("")) == 50
    names += [name for name, _ in first]
    assert sorted(names) == sorted(map(str, range(50)))


def test_entries_that_vanish_while_listed_are_left_out(base: Path, root: HostRoot) -> None:
    for number in range(20):
        (base / str(number)).touch()
    seen = []
    for name, _ in root.entries(""):
        seen.append(name)
        for other in os.listdir(base):
            if other != name:
                os.unlink(base / other)
    assert len(seen) == 1


def test_an_abandoned_listing_gives_its_descriptor_back(base: Path, root: HostRoot) -> None:
    (base / "a").touch()
    before = len(os.listdir("/proc/self/fd"))
    listing = root.entries("")
    next(listing)
    del listing
    assert len(os.listdir("/proc/self/fd")) == before


def test_renaming_never_replaces(base: Path, root: HostRoot) -> None:
    root.make_directory("a", mode=0o755)
    root.make_directory("b", mode=0o755)
    with pytest.raises(FileExistsError):
        root.rename("a", "b")
    root.rename("a", "b/a")
    assert root.names("b") == ["a"]


@pytest.mark.parametrize(("source", "target"), [("", "x"), ("a", "a/b"), ("a", "a"), ("a", "a/b/c")])
def test_a_tree_is_not_copied_into_itself(root: HostRoot, source: str, target: str) -> None:
    root.make_directory("a", mode=0o755)
    root.make_directory("a/b", mode=0o755)
    with pytest.raises(OSError, match="Invalid argument"):
        root.copy_tree(source, target, Progress())
