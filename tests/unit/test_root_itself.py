"""A root as a whole: the directories it trusts, how it is opened and told apart, how it is let go."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fspoolfs.progress import Progress
from fspoolfs.system import syscalls
from fspoolfs.system.paths import HostRoot


def write(root: HostRoot, path: str, data: bytes = b"data", *, replace: bool = False) -> None:
    root.write(path, data, replace=replace, durable=False)


def test_a_trusted_directory_is_reached_without_resolving(
    base: Path, root: HostRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.make_directory("own", mode=0o700)
    root.make_directory("own/items", mode=0o700)
    root.trust("own/items")

    def resolve(*_: object) -> int:
        raise AssertionError("resolved")

    with monkeypatch.context() as patch:
        patch.setattr(syscalls, "openat2", resolve)
        write(root, "own/items/a.xml")
        root.make_directory("own/items/d", mode=0o700)
        root.rename("own/items/d", "d")
        assert root.names("own/items") == ["a.xml"]
        assert root.stat("own/items/a.xml").size == 4
        root.remove_file("own/items/a.xml")
    assert os.listdir(base / "own/items") == []


def test_a_trusted_directory_stays_itself_when_another_takes_its_name(base: Path, root: HostRoot) -> None:
    root.make_directory("own", mode=0o700)
    root.trust("own")
    os.rename(base / "own", base / "moved")
    (base / "own").symlink_to(base.parent / "victim")
    write(root, "own/secret")
    assert os.listdir(base / "moved") == ["secret"]
    assert os.listdir(base.parent / "victim") == ["precious"]


@pytest.mark.parametrize("mode", [0o702, 0o720, 0o777])
def test_what_others_can_write_to_is_not_trusted(base: Path, root: HostRoot, mode: int) -> None:
    root.make_directory("own", mode=mode)
    with pytest.raises(PermissionError):
        root.trust("own")


def test_what_belongs_to_somebody_else_is_not_trusted(root: HostRoot) -> None:
    root.make_directory("own", mode=0o700)
    with pytest.raises(PermissionError):
        root.trust("own", owner=os.geteuid() + 1)
    root.trust("own", owner=os.geteuid())


def test_a_root_knows_whether_its_path_still_leads_to_it(base: Path, root: HostRoot) -> None:
    assert root.path == str(base)
    assert root.identity() == (base.stat().st_dev, base.stat().st_ino)
    assert root.device == base.stat().st_dev
    assert root.still_there()
    os.rename(base, base.with_name("gone"))
    assert not root.still_there()
    base.mkdir()
    assert not root.still_there()


def test_a_root_is_opened_by_an_absolute_path_to_a_directory(base: Path) -> None:
    (base / "file").touch()
    for path, number in {
        "relative": errno.EINVAL,
        "": errno.EINVAL,
        f"{base}/absent": errno.ENOENT,
        f"{base}/file": errno.ENOTDIR,
    }.items():
        with pytest.raises(OSError, match=r".") as caught:
            HostRoot.open(path)
        assert caught.value.errno == number


def test_locations_are_absolute_paths(base: Path, root: HostRoot) -> None:
    assert root.location("") == str(base)
    assert root.location("a/b") == f"{base}/a/b"
    top = HostRoot.open("/")
    assert (top.path, top.location("a")) == ("/", "/a")
    top.close()


def test_space_is_what_an_ordinary_user_has(base: Path, root: HostRoot) -> None:
    space = root.space()
    assert 0 < space.available <= space.capacity
    assert 0 < space.allocation <= space.capacity
    root.sync()


def test_closing_lets_the_storage_go_and_later_calls_fail(base: Path) -> None:
    root = HostRoot.open(str(base))
    root.make_directory("own", mode=0o700)
    root.trust("own")
    root.close()
    root.close()
    links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)]
    assert not [link for link in links if link.startswith(str(base))]
    calls: list[Callable[[], object]] = [
        lambda: root.stat(""),
        lambda: root.stat("own"),
        lambda: write(root, "f"),
        lambda: write(root, "own/f"),
        lambda: root.names(""),
        lambda: root.names("own"),
        lambda: root.set_attributes("", mode=0o777, owner=None, group=None),
        lambda: root.measure("", Progress()),
        root.space,
        root.sync,
    ]
    for call in calls:
        with pytest.raises(OSError, match=r".") as caught:
            call()
        assert caught.value.errno in (errno.ENOTDIR, errno.EBADF)


def _is_open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


def test_a_closed_root_keeps_its_numbers_until_its_last_user_is_done(base: Path) -> None:
    """Otherwise a thread that is about to use one would work in whatever is opened next."""
    root = HostRoot.open(str(base))
    number = root._root.fd
    root.close()
    other = os.open(base, os.O_RDONLY)
    try:
        assert other != number
        del root
        assert not _is_open(str(number))
    finally:
        os.close(other)
