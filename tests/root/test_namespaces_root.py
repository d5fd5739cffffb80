"""Who uses a directory, with real mounts in real namespaces."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fspoolfs.model.infos import MountUse
from fspoolfs.system.mounts import forget_recent
from fspoolfs.system.mounttable import MountTable
from fspoolfs.system.namespaces import MountWatch

pytestmark = [pytest.mark.root, pytest.mark.program("unshare", "mount", "umount")]


@pytest.fixture
def watch() -> Iterator[MountWatch]:
    made = MountWatch()
    yield made
    made.forget()


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[MountTable]:
    """Every reading of all namespaces that is made."""
    made: list[MountTable] = []
    real = MountTable.read

    def read() -> MountTable:
        made.append(real())
        return made[-1]

    monkeypatch.setattr(MountTable, "read", read)
    return made


class Container:
    """A shell in a mount namespace of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid

    def run(self, script: str) -> None:
        """Run a script in it and wait for its end."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{script} && echo done || echo failed\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"


@contextlib.contextmanager
def container(*, propagation: str = "private") -> Iterator[Container]:
    command = ["unshare", "--mount", f"--propagation={propagation}", "sh"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            made = Container(process)
            made.run("true")
            yield made
        finally:
            process.kill()


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A directory pool with an item."""
    for name in ("pool/web/logs", "pool/webmail", "mnt", "mnt2"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path / "pool"


@pytest.fixture
def attached(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, attached at a directory."""
    path = tmp_path / "attached"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], check=True)
    (path / "web").mkdir()
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_mount_in_another_namespace_is_found(pool: Path, tmp_path: Path, watch: MountWatch) -> None:
    with container() as other:
        assert watch.uses(str(pool)) == []
        other.run(f"mount --bind {pool}/web {tmp_path}/mnt")
        expected = MountUse(pid=other.pid, command="sh", inside="web", target=f"{tmp_path}/mnt")
        assert watch.uses(str(pool)) == [expected]
        assert watch.uses(str(pool / "webmail")) == []
        (own,) = watch.uses(str(pool / "web"))
        assert (own.inside, own.pid) == ("", other.pid)
        other.run(f"umount {tmp_path}/mnt")
        assert watch.uses(str(pool)) == []


def test_a_mount_of_something_inside_an_item_tells_the_place(
    pool: Path, tmp_path: Path, watch: MountWatch
) -> None:
    with container() as other:
        other.run(f"mount --bind {pool}/web/logs {tmp_path}/mnt")
        assert [use.inside for use in watch.uses(str(pool))] == ["web/logs"]
        assert [use.inside for use in watch.uses(str(pool / "web"))] == ["logs"]


def test_a_mount_of_the_whole_pool_or_of_what_is_above_it(
    pool: Path, tmp_path: Path, watch: MountWatch
) -> None:
    with container() as other:
        other.run(f"mount --bind {pool} {tmp_path}/mnt")
        assert [use.inside for use in watch.uses(str(pool))] == [""]
        other.run(f"umount {tmp_path}/mnt && mount --bind {tmp_path} {tmp_path}/mnt")
        assert watch.uses(str(pool)) == []


def test_a_mount_in_our_own_namespace_is_found(pool: Path, tmp_path: Path, watch: MountWatch) -> None:
    subprocess.run(["mount", "--bind", str(pool / "web"), str(tmp_path / "mnt")], check=True)
    try:
        uses = watch.uses(str(pool))
    finally:
        subprocess.run(["umount", str(tmp_path / "mnt")], check=True)
    assert [(use.inside, use.target) for use in uses] == [("web", str(tmp_path / "mnt"))]
    own = os.readlink("/proc/self/ns/mnt")
    assert os.readlink(f"/proc/{uses[0].pid}/ns/mnt") == own
    assert watch.uses(str(pool)) == []


def test_a_moved_item_is_found_where_it_is_now(pool: Path, tmp_path: Path, watch: MountWatch) -> None:
    with container() as other:
        other.run(f"mount --bind {pool}/web {tmp_path}/mnt")
        os.rename(pool / "web", pool / "moved")
        assert [use.inside for use in watch.uses(str(pool))] == ["moved"]


def test_names_with_blanks_and_newlines_are_matched(tmp_path: Path, watch: MountWatch) -> None:
    odd = tmp_path / "a b\tc\\d\n#e"
    (odd / "we b").mkdir(parents=True)
    (tmp_path / "m t").mkdir()
    with container() as other:
        other.run(f"cd {tmp_path} && mount --bind a*/we* 'm t'")
        assert [(use.inside, use.target) for use in watch.uses(str(odd))] == [("we b", f"{tmp_path}/m t")]


def test_the_mount_that_attaches_a_pool_and_its_copies_do_not_count(
    attached: Path, watch: MountWatch
) -> None:
    """Every service with a private namespace has such a copy."""
    with container(), container(propagation="slave"):
        assert watch.uses(str(attached)) == []


def test_a_copy_that_came_with_a_mount_of_the_host_does_not_count(
    attached: Path, tmp_path: Path, watch: MountWatch
) -> None:
    """Monitoring mounts the whole host, with all that is mounted in it."""
    (tmp_path / "host").mkdir()
    with container() as other:
        other.run(f"mount --rbind / {tmp_path}/host")
        assert watch.uses(str(attached)) == []


def test_other_mounts_of_an_attached_pool_count(attached: Path, tmp_path: Path, watch: MountWatch) -> None:
    for name in ("mnt", "mnt2"):
        (tmp_path / name).mkdir()
    with container() as other:
        other.run(f"mount --bind {attached} {tmp_path}/mnt && mount --bind {attached}/web {tmp_path}/mnt2")
        found = {(use.inside, use.target) for use in watch.uses(str(attached))}
    assert found == {("", f"{tmp_path}/mnt"), ("web", f"{tmp_path}/mnt2")}


def test_a_removed_directory_keeps_the_file_system_busy_but_no_item(
    attached: Path, tmp_path: Path, watch: MountWatch
) -> None:
    (tmp_path / "mnt").mkdir()
    with container() as other:
        other.run(f"mount --bind {attached}/web {tmp_path}/mnt")
        (attached / "web").rmdir()
        (attached / "web").mkdir()
        assert [use.inside for use in watch.uses(str(attached))] == [""]
        assert watch.uses(str(attached / "web")) == []


def test_an_ended_container_is_forgotten_at_once(pool: Path, tmp_path: Path, watch: MountWatch) -> None:
    with container() as other:
        other.run(f"mount --bind {pool}/web {tmp_path}/mnt")
        assert len(watch.uses(str(pool))) == 1
    assert watch.uses(str(pool)) == []


def test_a_kept_reading_sees_every_new_user(
    pool: Path, tmp_path: Path, watch: MountWatch, readings: list[MountTable]
) -> None:
    with container() as known:
        watch.uses(str(pool))
        assert watch.uses(str(pool)) == []
        known.run(f"mount --bind {pool}/web {tmp_path}/mnt")
        assert len(watch.uses(str(pool))) == 1
        known.run(f"umount {tmp_path}/mnt")
        assert watch.uses(str(pool)) == []
        with container() as new:
            new.run(f"mount --bind {pool}/web {tmp_path}/mnt2")
            assert [use.target for use in watch.uses(str(pool))] == [f"{tmp_path}/mnt2"]


def test_new_processes_alone_cost_no_reading(
    pool: Path, watch: MountWatch, readings: list[MountTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fspoolfs.system.namespaces.LIFETIME", 60.0)
    watch.uses(str(pool))
    for _ in range(5):
        subprocess.run(["true"], check=True)
        assert watch.uses(str(pool)) == []
    # Other work on the machine may have caused a second one.
    assert len(readings) <= 2


def test_looking_keeps_no_file_system_alive(tmp_path: Path, watch: MountWatch) -> None:
    """The mounts of a namespace live as long as a descriptor of its mountinfo."""
    (tmp_path / "mnt").mkdir()
    with container() as other:
        other.run(f"mount -t tmpfs tmpfs {tmp_path}/mnt")
        link = os.readlink(f"/proc/{other.pid}/ns/mnt")
        watch.uses(str(tmp_path))
        assert watch._table is not None
        assert link in watch._table._namespaces
    watch.forget()
    forget_recent()  # what others in this process have looked at
    held = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            held.append(os.readlink(f"/proc/self/fd/{fd}"))
    assert not [name for name in held if name.endswith("/mountinfo")]
