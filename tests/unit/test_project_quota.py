"""Project ids and the file system on them, with a kernel made up of a few dictionaries.

What a real kernel does with the limits is tested in the guest.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.cases import item
from fspoolfs.backends import project_ids, project_quota
from fspoolfs.backends.memory import MemoryRoot, MemoryTree
from fspoolfs.backends.project_ids import FIRST, LAST, ProjectIds
from fspoolfs.backends.project_quota import ProjectQuotaFileSystem
from fspoolfs.errors import BusyError, FspoolError, UnsupportedError
from fspoolfs.progress import Progress
from fspoolfs.system import quota
from fspoolfs.system.paths import HostRoot
from fspoolfs.system.quota import Counters, Project, State
from support.needs import needs_root

EXT4, XFS = 0xEF53, 0x58465342


class Kernel:
    """Counts the directories that `set_project` was called for; each that exists uses 4096 bytes."""

    def __init__(self) -> None:
        self.projects: dict[int, Project] = {}
        self.limits: dict[int, tuple[int, int]] = {}
        #: What else uses a project: files that were moved out, other programs.
        self.others: dict[int, int] = {}
        self.enforced = True

    def state(self, fd: int) -> State:
        return State(counted=True, enforced=self.enforced)

    def project(self, fd: int) -> Project:
        return self.projects.get(os.fstat(fd).st_ino, Project(0, False))

    def set_project(self, fd: int, number: int, *, inherits: bool = True) -> None:
        self.projects[os.fstat(fd).st_ino] = Project(number, inherits)

    def counters(self, fd: int, number: int) -> Counters:
        used = [project.id for project in self.projects.values()].count(number) + self.others.get(number, 0)
        return Counters(number, 4096 * used, used, *self.limits.get(number, (0, 0)))

    def next_counters(self, fd: int, number: int) -> Counters | None:
        known = {*(project.id for project in self.projects.values()), *self.others, *self.limits}
        found = [self.counters(fd, other) for other in sorted(known) if other >= number]
        return next((one for one in found if one.is_used or one.is_limited), None)

    def set_limits(self, fd: int, number: int, *, space: int, inodes: int) -> None:
        self.limits[number] = (space, inodes)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    for name in ("state", "project", "set_project", "counters", "next_counters", "set_limits"):
        monkeypatch.setattr(quota, name, getattr(made, name))
    return made


@pytest.fixture
def directories(tmp_path: Path) -> Iterator[list[int]]:
    paths = [tmp_path / str(number) for number in range(4)]
    for path in paths:
        path.mkdir()
    fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in paths]
    yield fds
    for fd in fds:
        os.close(fd)


# Ids.


def test_ids_meet_neither_incus_nor_systemd() -> None:
    assert 10001 + 1_000_000 < FIRST < LAST < 2147483648


def test_each_directory_gets_an_id_of_its_own_and_hands_it_down(
    kernel: Kernel, directories: list[int]
) -> None:
    ids = ProjectIds()
    assert [ids.give(fd) for fd in directories] == [FIRST, FIRST + 1, FIRST + 2, FIRST + 3]
    assert kernel.project(directories[1]) == (FIRST + 1, True)


def test_id_that_any_file_carries_is_not_given(kernel: Kernel, directories: list[int]) -> None:
    kernel.others = {FIRST: 1, FIRST + 1: 3, FIRST + 3: 1}
    ids = ProjectIds()
    assert [ids.give(fd) for fd in directories[:2]] == [FIRST + 2, FIRST + 4]


def test_limits_that_an_interrupted_removal_left_are_lifted(kernel: Kernel, directories: list[int]) -> None:
    kernel.limits[FIRST] = (1, 1)
    assert ProjectIds().give(directories[0]) == FIRST
    assert kernel.limits[FIRST] == (0, 0)


def test_ids_are_used_once_before_the_first_comes_again(kernel: Kernel, directories: list[int]) -> None:
    ids = ProjectIds()
    ids.give(directories[0])
    kernel.projects.clear()
    assert ids.give(directories[1]) == FIRST + 1
    ids._next = LAST
    assert [ids.give(fd) for fd in directories[2:]] == [LAST, FIRST]


def test_id_whose_last_files_are_being_removed_is_not_given(kernel: Kernel, directories: list[int]) -> None:
    ids = ProjectIds()
    kernel.limits[FIRST] = (5, 5)
    with ids.retiring(directories[0], FIRST):
        assert ids.give(directories[1]) == FIRST + 1
        assert kernel.limits[FIRST] == (5, 5)
    assert kernel.limits[FIRST] == (0, 0)


def test_failed_removal_keeps_the_limits(kernel: Kernel, directories: list[int]) -> None:
    ids = ProjectIds()
    kernel.limits[FIRST] = (5, 5)
    with pytest.raises(OSError, match="busy"), ids.retiring(directories[0], FIRST):
        raise OSError(errno.EBUSY, "busy")
    assert kernel.limits[FIRST] == (5, 5)


def test_id_that_another_program_took_at_the_same_time_is_left_to_it(
    kernel: Kernel, directories: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interfere(fd: int, number: int, *, inherits: bool = True) -> None:
        if number == FIRST:
            kernel.others[FIRST] = 1
        kernel.set_project(fd, number, inherits=inherits)

    monkeypatch.setattr(quota, "set_project", interfere)
    assert ProjectIds().give(directories[0]) == FIRST + 1
    assert kernel.project(directories[0]).id == FIRST + 1


def test_directory_is_left_without_an_id_where_every_one_is_taken(
    kernel: Kernel, directories: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interfere(fd: int, number: int, *, inherits: bool = True) -> None:
        kernel.others[number] = 1
        kernel.set_project(fd, number, inherits=inherits)

    monkeypatch.setattr(quota, "set_project", interfere)
    with pytest.raises(BusyError, match="another program"):
        ProjectIds().give(directories[0])
    assert kernel.project(directories[0]) == (0, False)


def test_exhausted_ids_are_an_error(
    kernel: Kernel, directories: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project_ids, "LAST", FIRST + 1)
    kernel.others = {FIRST: 1, FIRST + 1: 1}
    ids = ProjectIds()
    for start in (FIRST, FIRST + 1):
        ids._next = start
        with pytest.raises(FspoolError, match="every project id is in use"):
            ids.give(directories[0])


def test_pools_on_one_file_system_share_their_ids(directories: list[int]) -> None:
    ids = project_ids.of_filesystem(directories[0])
    assert ids is project_ids.of_filesystem(directories[1])
    fd = os.open("/proc", os.O_RDONLY)
    assert ids is not project_ids.of_filesystem(fd)
    os.close(fd)


# The file system.


@pytest.fixture(params=[EXT4, XFS], ids=["ext4", "xfs"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HostRoot]:
    with closing(HostRoot.open(str(tmp_path))) as opened:
        opened.filesystem_magic = lambda: request.param  # type: ignore[method-assign]
        yield opened


@pytest.fixture
def filesystem(kernel: Kernel, root: HostRoot) -> ProjectQuotaFileSystem:
    found = project_quota.probe(root)
    assert found is not None
    return found


def project_of(filesystem: ProjectQuotaFileSystem, path: str) -> int:
    with filesystem._open(path) as fd:
        return quota.project(fd).id


def features(filesystem: ProjectQuotaFileSystem) -> dict[str, tuple[str, str]]:
    return {feature.name: (feature.reason, feature.note) for feature in filesystem.features()}


def test_memory_is_no_place_for_projects() -> None:
    assert project_quota.probe(MemoryRoot(MemoryTree(), "/simulated")) is None


def test_directory_of_this_kernel_is_none(tmp_path: Path) -> None:
    with closing(HostRoot.open(str(tmp_path))) as opened:
        if opened.filesystem_magic() in (EXT4, XFS) and quota.state(opened._root.fd).counted:
            pytest.skip("this file system counts projects")
        assert project_quota.probe(opened) is None


@needs_root
def test_root_that_hands_down_a_project_is_not_for_this(kernel: Kernel, root: HostRoot) -> None:
    fd = root.open_directory("")
    quota.set_project(fd, 10001)
    os.close(fd)
    assert project_quota.probe(root) is None


@needs_root
def test_root_of_a_user_namespace_is_not_enough(
    kernel: Kernel, root: HostRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, number: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(quota, "next_counters", refuse)
    assert project_quota.probe(root) is None


@needs_root
def test_what_is_counted_and_not_enforced_says_what_to_do(
    filesystem: ProjectQuotaFileSystem, kernel: Kernel, root: HostRoot
) -> None:
    kernel.enforced = False
    advice = "'quotaon -P'" if root.filesystem_magic() == EXT4 else "'enable -p'"
    for name in ("quota", "files", "resize"):
        assert advice in features(filesystem)[name][0]
    assert features(filesystem)["usage"] == ("", "")
    for wanted in (replace(item(), capacity=1), replace(item(), files=1)):
        with pytest.raises(UnsupportedError, match=r"item web: .*not enforced.*; or leave"):
            filesystem.check(wanted)
    filesystem.check(item())


@needs_root
def test_features_tell_whom_nothing_limits(filesystem: ProjectQuotaFileSystem, root: HostRoot) -> None:
    exempt = "root with CAP_SYS_RESOURCE is not limited" if root.filesystem_magic() == EXT4 else ""
    assert features(filesystem)["quota"] == ("", exempt)
    assert features(filesystem)["snapshot"][1].endswith("outside of its limits")


@needs_root
def test_limits_reach_the_kernel_and_are_lifted(filesystem: ProjectQuotaFileSystem, kernel: Kernel) -> None:
    wanted = replace(item(), capacity=1 << 20, files=10)
    filesystem.create("web", wanted)
    number = project_of(filesystem, "web")
    assert kernel.limits[number] == (1 << 20, 10)
    filesystem.update("web", wanted, replace(item(), files=5))
    assert kernel.limits[number] == (0, 5)
    filesystem.update("web", item(), replace(item(), capacity=0, files=0))
    assert kernel.limits[number] == (1, 1), "to the kernel 0 is no limit"


@needs_root
def test_directory_that_is_open_to_others_has_its_project_first(
    filesystem: ProjectQuotaFileSystem, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []

    def note(fd: int, number: int, *, inherits: bool = True) -> None:
        modes.append(os.fstat(fd).st_mode & 0o7777)
        kernel.set_project(fd, number, inherits=inherits)

    monkeypatch.setattr(quota, "set_project", note)
    filesystem.create("web", item(0o1777))
    assert modes == [0o700]
    assert filesystem.root.stat("web").mode & 0o7777 == 0o1777


@needs_root
def test_directory_goes_again_where_it_can_have_no_project(
    filesystem: ProjectQuotaFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, number: int, *, inherits: bool = True) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(quota, "set_project", refuse)
    with pytest.raises(OSError, match="full"):
        filesystem.create("web", item(0o777))
    assert filesystem.root.names("") == []


@needs_root
def test_directory_that_held_files_before_cannot_be_limited(
    filesystem: ProjectQuotaFileSystem, kernel: Kernel
) -> None:
    filesystem.root.make_directory("web", mode=0o755)
    filesystem.root.write("web/file", b"", replace=False, durable=False)
    wanted = replace(item(), capacity=1 << 20)
    for refused in (lambda: filesystem.check(wanted), lambda: filesystem.update("web", item(), wanted)):
        with pytest.raises(UnsupportedError, match=r"item web: .* would need a walk; clone the item"):
            refused()
    filesystem.update("web", item(), item(0o700))
    assert kernel.projects == {}
    with pytest.raises(UnsupportedError, match="not counted"):
        filesystem.usage("web")
    assert filesystem.usages(["web"]) == {}


@needs_root
def test_empty_directory_gets_its_project_late(filesystem: ProjectQuotaFileSystem, kernel: Kernel) -> None:
    filesystem.root.make_directory("web", mode=0o755)
    filesystem.update("web", item(), replace(item(), capacity=1 << 20))
    assert kernel.limits[project_of(filesystem, "web")] == (1 << 20, 0)


@needs_root
def test_owner_who_fills_a_directory_meanwhile_keeps_it_out_of_a_project(
    filesystem: ProjectQuotaFileSystem, kernel: Kernel, root: HostRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(fd: int, number: int, *, inherits: bool = True) -> None:
        Path(root.path, "web", "file").touch()
        kernel.set_project(fd, number, inherits=inherits)

    root.make_directory("web", mode=0o755)
    monkeypatch.setattr(quota, "set_project", fill)
    with pytest.raises(UnsupportedError):
        filesystem.update("web", item(), replace(item(), capacity=1 << 20))
    assert project_of(filesystem, "web") == 0


@needs_root
def test_id_that_the_owner_changed_is_not_believed(
    filesystem: ProjectQuotaFileSystem, kernel: Kernel
) -> None:
    filesystem.create("web", item())
    filesystem.create("db", replace(item(), capacity=1 << 20))
    filesystem.root.write("web/file", b"", replace=False, durable=False)
    own, theirs = project_of(filesystem, "web"), project_of(filesystem, "db")
    with filesystem._open("web") as fd:
        quota.set_project(fd, theirs)
    with pytest.raises(UnsupportedError, match="its owner has changed its project id"):
        filesystem.usage("web")
    assert filesystem.usages(["web", "db"]).keys() == {"db"}
    wanted = replace(item(), capacity=1 << 40)
    filesystem.check(wanted)
    filesystem.update("web", item(), wanted)
    assert project_of(filesystem, "web") not in (own, theirs)
    assert kernel.limits[project_of(filesystem, "web")] == (1 << 40, 0)
    assert kernel.limits[theirs] == (1 << 20, 0)


@needs_root
def test_removing_an_item_whose_owner_took_the_id_of_another_lifts_nothing_there(
    filesystem: ProjectQuotaFileSystem, kernel: Kernel
) -> None:
    filesystem.create("web", item())
    filesystem.create("db", replace(item(), capacity=1 << 20))
    theirs = project_of(filesystem, "db")
    with filesystem._open("web") as fd:
        quota.set_project(fd, theirs)
    filesystem.remove("web", Progress())
    assert kernel.limits[theirs] == (1 << 20, 0)


@needs_root
def test_link_in_the_place_of_a_directory_is_left_to_whoever_looks_for_it(
    filesystem: ProjectQuotaFileSystem, root: HostRoot
) -> None:
    os.symlink("/etc", root.location("web"))
    filesystem.check(replace(item(), capacity=1 << 20))
    assert filesystem.usages(["web"]) == {}


@needs_root
def test_clone_has_a_project_of_its_own_and_a_snapshot_none(
    filesystem: ProjectQuotaFileSystem, kernel: Kernel
) -> None:
    filesystem.create("web", replace(item(), capacity=1 << 20))
    filesystem.clone("web", "copy", replace(item(), capacity=1 << 21), Progress())
    filesystem.snapshot("web", "kept", Progress())
    own, copied = project_of(filesystem, "web"), project_of(filesystem, "copy")
    assert len({own, copied, project_of(filesystem, "kept")}) == 3
    filesystem.update("copy", item(), replace(item(), capacity=1 << 22))
    assert (kernel.limits[own], kernel.limits[copied]) == ((1 << 20, 0), (1 << 22, 0))
    assert filesystem.usages(["web", "copy", "kept"]).keys() == {"web", "copy"}


@needs_root
def test_removing_lifts_the_limits_last(filesystem: ProjectQuotaFileSystem, kernel: Kernel) -> None:
    filesystem.create("web", replace(item(), capacity=1 << 20))
    number = project_of(filesystem, "web")
    stopped = Progress()
    stopped.cancel()
    for name in map(str, range(100)):
        filesystem.root.write(f"web/{name}", b"", replace=False, durable=False)
    with pytest.raises(FspoolError):
        filesystem.remove("web", stopped)
    assert kernel.limits[number] == (1 << 20, 0)
    filesystem.remove("web", Progress())
    assert kernel.limits[number] == (0, 0)


@needs_root
def test_moved_item_keeps_its_id(filesystem: ProjectQuotaFileSystem) -> None:
    filesystem.create("web", item())
    number = project_of(filesystem, "web")
    filesystem.move("web", "customers/web")
    assert project_of(filesystem, "customers/web") == number
    assert filesystem.usages(["web", "customers/web"]).keys() == {"customers/web"}


@needs_root
def test_usage_is_of_the_directory_that_is_there_now(
    filesystem: ProjectQuotaFileSystem, kernel: Kernel, root: HostRoot
) -> None:
    for name in ("web", "db"):
        filesystem.create(name, item())
        kernel.others[project_of(filesystem, name)] = {"web": 10, "db": 20}[name]
    before = filesystem.usages(["web", "db"])
    assert (before["web"].inodes, before["db"].inodes) == (11, 21)
    root.exchange("web", "db")
    after = filesystem.usages(["web", "db"])
    assert (after["web"], after["db"]) == (before["db"], before["web"])


@needs_root
def test_directories_are_not_read_again_when_nothing_changed(
    filesystem: ProjectQuotaFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem.create("web", item())
    first = filesystem.usages(["web"])
    # As if the directory had been made a while ago.
    monkeypatch.setattr(project_quota, "_CLOCK_STEP", -(10**18))
    assert filesystem.usages(["web"]) == first
    monkeypatch.setattr(filesystem, "_read", None)
    assert filesystem.usages(["web"]) == first
