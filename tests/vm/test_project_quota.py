"""What the kernel makes of project quota: limits that hold, numbers that are right, ways out of them."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.cases import item
from fspoolfs.backends import project_quota
from fspoolfs.backends.project_quota import ProjectQuotaFileSystem
from fspoolfs.backends.registry import default_registry
from fspoolfs.errors import StorageError, UnsupportedError
from fspoolfs.model.definitions import ItemDefinition
from fspoolfs.progress import Progress
from fspoolfs.system import quota
from fspoolfs.system.paths import HostRoot
from support.shell import as_user, run, sh
from support.wait import eventually
from vm.disks import Volume, space, volume
from vm.preloaded import PreloadedDaemon

MIB = 1 << 20
OWNER = as_user(1000)
#: Root as the container runtimes leave it.
_DROPPED = ("setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource", "--")
OVER_LIMIT = {"ext4": "Disk quota exceeded", "xfs": "No space left on device"}


def limited_item(*, capacity: int | None = None, files: int | None = None) -> ItemDefinition:
    return replace(item(0o755, OWNER.uid, OWNER.gid), capacity=capacity, files=files)


@pytest.fixture
def web(quotas: ProjectQuotaFileSystem) -> Path:
    """An item of 4 MiB and 10 files."""
    quotas.create("web", limited_item(capacity=4 * MIB, files=10))
    return Path(quotas.root.location("web"))


def fill(file: Path, mib: int, *prefix: str) -> str:
    """Write so many MiB; what dd(1) said when that failed."""
    block = ("dd", "if=/dev/zero", f"of={file}", "bs=64k", f"count={16 * mib}", "conv=fsync", "status=none")
    return run(*prefix, *block, check=False).stderr


def touch(directory: Path, number: int, *prefix: str) -> str:
    return run(*prefix, "touch", *(directory / f"f{n}" for n in range(number)), check=False).stderr


def project_of(filesystem: ProjectQuotaFileSystem, path: str) -> int:
    with filesystem._open(path) as fd:
        return quota.project(fd).id


@contextmanager
def probed(place: Volume) -> Iterator[ProjectQuotaFileSystem]:
    with closing(HostRoot.open(str(place.new_directory()))) as root:
        found = project_quota.probe(root)
        assert found is not None
        yield found


# Limits.


def test_capacity_holds_for_a_user(quotas: ProjectQuotaFileSystem, limited: Volume, web: Path) -> None:
    said = run(
        "dd", "if=/dev/zero", f"of={web}/large", "bs=64k", "count=200", "status=none", user=OWNER, check=False
    ).stderr
    assert OVER_LIMIT[limited.kind] in said
    assert 3 * MIB < os.stat(web / "large").st_size <= 4 * MIB
    assert quotas.usage("web").allocation <= 4 * MIB


def test_capacity_holds_for_root_without_the_capability(limited: Volume, web: Path) -> None:
    assert OVER_LIMIT[limited.kind] in fill(web / "large", 8, *_DROPPED)


def test_root_is_limited_on_xfs_alone(quotas: ProjectQuotaFileSystem, limited: Volume, web: Path) -> None:
    said = fill(web / "large", 8)
    note = next(feature.note for feature in quotas.features() if feature.name == "quota")
    if limited.kind == "ext4":
        assert (said, os.stat(web / "large").st_size) == ("", 8 * MIB)
        assert note == "root with CAP_SYS_RESOURCE is not limited"
    else:
        assert OVER_LIMIT["xfs"] in said
        assert note == ""


def test_number_of_files_holds(quotas: ProjectQuotaFileSystem, limited: Volume, web: Path) -> None:
    assert OVER_LIMIT[limited.kind] in touch(web, 20, *_DROPPED)
    # The item's own directory is one of the ten.
    assert len(os.listdir(web)) == 9
    assert quotas.usage("web").inodes == 10


def test_lifted_limits_hold_nobody(quotas: ProjectQuotaFileSystem, web: Path) -> None:
    quotas.update("web", limited_item(capacity=4 * MIB), limited_item())
    assert fill(web / "large", 8, *_DROPPED) == ""
    assert touch(web, 20, *_DROPPED) == ""


def test_writer_that_waits_goes_on_when_the_item_grows(quotas: ProjectQuotaFileSystem, web: Path) -> None:
    script = "until dd if=/dev/zero of=large bs=64k count=128 2>/dev/null; do echo; done"
    setpriv = ("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--")
    with subprocess.Popen([*setpriv, "sh", "-c", script], cwd=web, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"\n", "it was refused once"
        quotas.update("web", limited_item(capacity=4 * MIB), limited_item(capacity=16 * MIB))
        writer.communicate(timeout=60)
    assert writer.returncode == 0
    assert os.stat(web / "large").st_size == 8 * MIB


def test_copy_shares_nothing_of_the_limits(
    quotas: ProjectQuotaFileSystem, limited: Volume, web: Path
) -> None:
    assert fill(web / "large", 3) == ""
    quotas.snapshot("web", "kept", Progress())
    quotas.clone("web", "copy", limited_item(capacity=8 * MIB), Progress())
    quotas.root.sync()
    assert quotas.usages(["web", "kept", "copy"]).keys() == {"web", "copy"}
    assert quotas.usage("copy").allocation >= 3 * MIB
    assert fill(web / "more", 2, *_DROPPED) != ""
    assert fill(Path(quotas.root.location("copy/more")), 2, *_DROPPED) == ""
    if limited.kind == "xfs":
        with pytest.raises(StorageError, match="No space left"):
            quotas.clone("web", "small", limited_item(capacity=MIB), Progress())


# Numbers.


def test_df_shows_the_item(web: Path, limited: Volume) -> None:
    assert space(web) == 4 * MIB
    assert space(limited.place) > 100 * MIB
    (web / "inner").mkdir()
    assert space(web / "inner") == 4 * MIB


def test_usage_is_what_a_walk_finds(quotas: ProjectQuotaFileSystem, web: Path) -> None:
    (web / "inner").mkdir()
    fill(web / "inner" / "file", 1)
    os.link(web / "inner" / "file", web / "second")
    quotas.root.sync()
    assert quotas.usage("web") == quotas.measure("web", Progress()) == quotas.usages(["web"])["web"]
    assert quotas.usage("web").inodes == 3


def test_capacity_of_an_odd_number_of_bytes_is_rounded_up(quotas: ProjectQuotaFileSystem, web: Path) -> None:
    quotas.update("web", limited_item(), limited_item(capacity=MIB + 1))
    with quotas._open("web") as fd:
        limit = quota.counters(fd, quota.project(fd).id).space_limit
    assert MIB + 1 <= limit <= MIB + 4096
    quotas.update("web", limited_item(), limited_item(capacity=2**63 - 1))
    assert fill(web / "large", 8, *_DROPPED) == ""


def test_kernel_without_the_call_by_descriptor_is_asked_by_the_device(
    quotas: ProjectQuotaFileSystem, web: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = quotas.usage("web")
    monkeypatch.setattr(quota, "_NR_QUOTACTL_FD", 1 << 20)
    assert quotas.usage("web") == expected
    assert quotas._not_enforced() == ""


def test_two_pools_on_one_file_system_never_choose_the_same_id(
    quotas: ProjectQuotaFileSystem, limited: Volume
) -> None:
    with probed(limited) as other, ThreadPoolExecutor(4) as threads:

        def make(number: int) -> int:
            filesystem = (quotas, other)[number % 2]
            filesystem.create(f"i{number}", limited_item(files=5))
            return project_of(filesystem, f"i{number}")

        assert len(set(threads.map(make, range(40)))) == 40


# Where nothing is enforced.


def test_ext4_that_only_counts_says_so_until_it_is_told_to_enforce() -> None:
    counting = volume("ext4", "defaults")
    with probed(counting) as filesystem:
        reason = next(feature.reason for feature in filesystem.features() if feature.name == "quota")
        assert "counted but not enforced" in reason
        assert "'quotaon -P'" in reason
        filesystem.create("web", limited_item())
        assert filesystem.usage("web").inodes == 1
        counting.remount("prjquota")
        with pytest.raises(UnsupportedError, match=r"not enforced.*a remount changes nothing"):
            filesystem.check(limited_item(capacity=MIB))
        run("quotaon", "-P", counting.place)
        filesystem.check(limited_item(capacity=MIB))
        filesystem.update("web", limited_item(), limited_item(capacity=MIB))
        web = Path(filesystem.root.location("web"))
        assert OVER_LIMIT["ext4"] in fill(web / "large", 2, *_DROPPED)


def test_xfs_that_only_counts_says_so_until_it_is_told_to_enforce() -> None:
    counting = volume("xfs", "pqnoenforce")
    with probed(counting) as filesystem:
        counting.remount("prjquota")
        with pytest.raises(UnsupportedError, match=r"enable -p.*a remount changes nothing"):
            filesystem.check(limited_item(capacity=MIB))
        run("xfs_quota", "-x", "-c", "enable -p", counting.place)
        filesystem.check(limited_item(capacity=MIB))


def test_xfs_that_does_not_count_is_a_generic_one() -> None:
    plain = volume("xfs", "defaults")
    with closing(HostRoot.open(str(plain.place))) as root:
        assert default_registry(Path("/nonexistent")).filesystem_at(root).name == "generic"


def test_registry_finds_it(limited: Volume) -> None:
    with closing(HostRoot.open(str(limited.place))) as root:
        assert default_registry(Path("/nonexistent")).filesystem_at(root).name == "project-quota"


# Ways out.


def test_nothing_is_renamed_or_linked_from_one_item_into_another(
    quotas: ProjectQuotaFileSystem, web: Path
) -> None:
    quotas.create("db", limited_item())
    db = Path(quotas.root.location("db"))
    (web / "file").touch()
    for move in (os.link, os.rename):
        with pytest.raises(OSError, match="cross-device") as caught:
            move(web / "file", db / "file")
        assert caught.value.errno == errno.EXDEV


def test_id_is_not_used_again_while_a_file_that_was_moved_out_carries_it(
    quotas: ProjectQuotaFileSystem, web: Path
) -> None:
    number = project_of(quotas, "web")
    (web / "file").write_bytes(bytes(MIB))
    outside = Path(quotas.root.location("outside"))
    (web / "file").rename(outside)
    quotas.remove("web", Progress())
    quotas._ids._next = number
    quotas.create("db", limited_item())
    assert project_of(quotas, "db") != number
    outside.unlink()
    with quotas._open("") as fd:
        eventually(lambda: not quota.counters(fd, number).is_used, what="nothing carries the id")
    quotas._ids._next = number
    quotas.create("shop", limited_item())
    assert project_of(quotas, "shop") == number


def test_removed_item_leaves_neither_limits_nor_use(quotas: ProjectQuotaFileSystem, web: Path) -> None:
    number = project_of(quotas, "web")
    (web / "file").write_bytes(bytes(MIB))
    quotas.remove("web", Progress())
    with quotas._open("") as fd:
        assert not quota.counters(fd, number).is_limited
        eventually(lambda: not quota.counters(fd, number).is_used, what="nothing carries the id")


def test_deleted_file_counts_as_long_as_it_is_open(quotas: ProjectQuotaFileSystem, web: Path) -> None:
    with (web / "file").open("wb") as file:
        file.write(bytes(2 * MIB))
        file.flush()
        os.fsync(file.fileno())
        (web / "file").unlink()
        assert quotas.usage("web").allocation >= 2 * MIB
        assert quotas.usage("web").inodes == 2
    # xfs frees what was deleted in the background.
    eventually(lambda: quotas.usage("web").allocation < MIB, what="the closed file is counted no more")


def test_owner_outside_of_a_user_namespace_can_leave_the_project(
    quotas: ProjectQuotaFileSystem, web: Path
) -> None:
    """What the kernel allows, and docs/project-quota.md tells; a user namespace does not allow it."""
    run("dd", "if=/dev/zero", f"of={web}/file", "bs=64k", "count=32", "status=none", user=OWNER)
    refused = run("unshare", "-U", "-r", "chattr", "-p", "0", web / "file", user=OWNER, check=False)
    assert "Invalid argument" in refused.stderr
    assert quotas.usage("web").inodes == 2
    run("chattr", "-p", "0", web / "file", user=OWNER)
    assert quotas.usage("web").inodes == 1


def test_owner_who_takes_the_id_of_another_item_changes_nothing_there(
    quotas: ProjectQuotaFileSystem, web: Path
) -> None:
    quotas.create("db", limited_item(capacity=2 * MIB))
    theirs = project_of(quotas, "db")
    (web / "file").touch()
    run("chattr", "-p", str(theirs), web, user=OWNER)
    quotas.update("web", limited_item(), limited_item(capacity=64 * MIB))
    assert (space(web), space(Path(quotas.root.location("db")))) == (64 * MIB, 2 * MIB)
    run("chattr", "-p", str(theirs), web, user=OWNER)
    quotas.remove("web", Progress())
    assert space(Path(quotas.root.location("db"))) == 2 * MIB


# A daemon on it.


def test_limits_reach_the_kernel_through_the_tree(limited: Volume) -> None:
    daemon = PreloadedDaemon(limited.new_directory())
    try:
        daemon.start()
        tank = daemon.mount / "pools" / "tank"
        sh('mkdir "$1" && echo "start build" > "$1/status"', tank)
        assert "filesystem: project-quota" in (tank / "features").read_text()
        (daemon.mount / "define").write_text(
            "<fs><name>web</name><capacity unit='MiB'>4</capacity><source fspool='tank'/></fs>\n"
        )
        data = (tank / "items" / "web" / "data").resolve()
        assert space(data) == 4 * MIB
        assert OVER_LIMIT[limited.kind] in fill(data / "large", 8, *_DROPPED)
    finally:
        daemon.close()
