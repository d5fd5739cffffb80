"""What is peculiar to the simulated file system: it counts and limits directories as a kernel does."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from conformance.cases import item
from fspoolfs.backends import simulated_quota
from fspoolfs.backends.memory import MemoryRoot, MemoryTree
from fspoolfs.backends.simulated_quota import SimulatedFileSystem
from fspoolfs.model.infos import UsageInfo
from fspoolfs.progress import Progress
from fspoolfs.system.paths import HostRoot

KiB = 1024
LIMITED = replace(item(), capacity=64 * KiB, files=5)


@pytest.fixture
def root() -> MemoryRoot:
    return MemoryRoot(MemoryTree(), "/simulated")


@pytest.fixture
def filesystem(root: MemoryRoot) -> SimulatedFileSystem:
    filesystem = simulated_quota.probe(root)
    assert filesystem is not None
    filesystem.create("web", LIMITED)
    return filesystem


def write(root: MemoryRoot, path: str, size: int, *, replace: bool = False) -> None:
    root.write(path, bytes(size), replace=replace, durable=False)


def refuse_growth(action: Callable[[], None]) -> None:
    with pytest.raises(OSError, match="quota") as caught:
        action()
    assert caught.value.errno == errno.EDQUOT


def test_only_a_root_in_memory_is_simulated(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = HostRoot.open(str(tmp_path_factory.mktemp("root")))
    assert simulated_quota.probe(root) is None
    root.close()


def test_an_item_holds_no_more_bytes_than_its_capacity(
    filesystem: SimulatedFileSystem, root: MemoryRoot
) -> None:
    write(root, "web/a", 40 * KiB)
    refuse_growth(lambda: write(root, "web/b", 40 * KiB))
    assert root.names("web") == ["a"]
    assert filesystem.usage("web") == UsageInfo(allocation=44 * KiB, inodes=2)
    write(root, "outside", 40 * KiB)
    write(root, "web/b", 20 * KiB)
    refuse_growth(lambda: root.make_directory("web/c", mode=0o755))
    root.remove_file("web/a")
    root.make_directory("web/c", mode=0o755)


def test_an_item_holds_no_more_files_than_its_limit(
    filesystem: SimulatedFileSystem, root: MemoryRoot
) -> None:
    root.make_directory("web/inner", mode=0o755)
    for name in ("a", "inner/b", "inner/c"):
        write(root, f"web/{name}", 1)
    refuse_growth(lambda: write(root, "web/inner/d", 1))
    root.remove_file("web/a")
    write(root, "web/inner/d", 1)
    assert filesystem.usage("web").inodes == 5


def test_limits_are_lifted_and_lowered_below_what_is_there(
    filesystem: SimulatedFileSystem, root: MemoryRoot
) -> None:
    filesystem.update("web", LIMITED, item())
    write(root, "web/a", 400 * KiB)
    filesystem.update("web", item(), LIMITED)
    refuse_growth(lambda: write(root, "web/b", 1))
    root.remove_file("web/a")
    write(root, "web/b", 1)


def test_limits_and_counters_move_along(filesystem: SimulatedFileSystem, root: MemoryRoot) -> None:
    write(root, "web/a", 40 * KiB)
    filesystem.move("web", "away/web")
    assert filesystem.usages(["web", "away/web", "away"]).keys() == {"away/web"}
    refuse_growth(lambda: write(root, "away/web/b", 40 * KiB))


def test_what_was_there_before_is_counted_too(root: MemoryRoot, filesystem: SimulatedFileSystem) -> None:
    root.make_directory("found", mode=0o755)
    write(root, "found/a", 40 * KiB)
    assert filesystem.usages(["found"]) == {}
    with pytest.raises(FileNotFoundError):
        filesystem.usage("found")
    filesystem.update("found", item(), LIMITED)
    assert filesystem.usage("found") == UsageInfo(allocation=44 * KiB, inodes=2)


def test_nothing_is_renamed_into_or_out_of_an_item(filesystem: SimulatedFileSystem, root: MemoryRoot) -> None:
    filesystem.create("db", item())
    root.make_directory("plain", mode=0o755)
    write(root, "web/a", 1)
    for source, target in (("web/a", "a"), ("web/a", "db/a"), ("plain", "web/plain"), ("db", "web/db")):
        with pytest.raises(OSError, match="link") as caught:
            root.rename(source, target)
        assert caught.value.errno == errno.EXDEV
    with pytest.raises(OSError, match="link"):
        root.exchange("web/a", "plain")
    root.exchange("web", "db")
    assert filesystem.usage("db").inodes == 2


def test_a_clone_has_the_limits_of_its_own_definition(
    filesystem: SimulatedFileSystem, root: MemoryRoot
) -> None:
    write(root, "web/a", 40 * KiB)
    small = replace(item(), capacity=16 * KiB)
    refuse_growth(lambda: filesystem.clone("web", "small", small, Progress()))
    filesystem.clone("web", "large", item(), Progress())
    write(root, "large/b", 400 * KiB)
    assert filesystem.usage("web").allocation == 44 * KiB


def test_nothing_limits_a_snapshot(filesystem: SimulatedFileSystem, root: MemoryRoot) -> None:
    write(root, "web/a", 40 * KiB)
    filesystem.snapshot("web", "kept", Progress())
    assert filesystem.usage("web").allocation == 44 * KiB
    filesystem.freeze("web")
    write(root, "web/b", 400 * KiB)


@pytest.mark.parametrize("seed", range(16))
def test_counters_are_true_after_a_power_cut(
    seed: int, filesystem: SimulatedFileSystem, root: MemoryRoot
) -> None:
    """Whatever part of the changes survives, what is counted is what is there."""
    write(root, "web/a", 8 * KiB)
    filesystem.create("db", LIMITED)
    write(root, "db/b", 8 * KiB)
    root.tree.sync_file("db/b")
    write(root, "web/a", 20 * KiB, replace=True)
    filesystem.move("web", "shop")
    tree = root.tree.power_cut(random.Random(seed))
    for name in set(tree.names("")):
        account = tree.account(name)
        assert account is None or account.info() == tree.usage(name)
