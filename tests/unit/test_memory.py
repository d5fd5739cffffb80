"""The in-memory tree: what is durable, what a power cut leaves, and where space ends."""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fspoolfs.backends.memory import MemoryRoot, MemoryTree
from fspoolfs.backends.simulator import Faults, SimulatedCrash
from fspoolfs.model.infos import FileInfo
from fspoolfs.progress import Progress

SEEDS = range(64)


class Everything(random.Random):
    """The chance by which a power cut loses nothing."""

    def random(self) -> float:
        return 0.0

    def randint(self, a: int, b: int) -> int:
        return b


@pytest.fixture
def tree() -> MemoryTree:
    ticks = count(1)
    return MemoryTree(clock=lambda: next(ticks))


@pytest.fixture
def root(tree: MemoryTree) -> MemoryRoot:
    return MemoryRoot(tree, "/simulated")


def write(root: MemoryRoot, path: str, data: bytes, *, replace: bool = False, durable: bool = False) -> None:
    root.write(path, data, replace=replace, durable=durable)


def picture(tree: MemoryTree) -> dict[str, tuple[FileInfo, bytes | None]]:
    """Everything that can be seen of a tree."""
    return {path: (info, content) for path, info, content in tree.collect("")}


def assert_sound(tree: MemoryTree) -> None:
    """What is accounted for is what can be reached: no storage is left without an entry."""
    assert tree.usage("").allocation == tree.space().allocation


# What survives a power cut.


def test_what_was_never_synced_can_be_lost_whole(tree: MemoryTree, root: MemoryRoot) -> None:
    root.make_directory("a", mode=0o755)
    write(root, "a/file", b"data")
    assert tree.power_cut().names("") == []
    assert tree.names("a") == ["file"]


def test_sync_makes_everything_durable(tree: MemoryTree, root: MemoryRoot) -> None:
    root.make_directory("a", mode=0o755)
    write(root, "a/file", b"data")
    log = root.open_log("log", size=1024)
    log.write(0, b"record")
    root.rename("a", "b")
    root.set_attributes("b", mode=0o700, owner=7, group=8)
    root.sync()
    assert tree.waiting == 0
    assert picture(tree.power_cut()) == picture(tree)


def test_durable_write_brings_the_file_and_the_way_to_it(tree: MemoryTree, root: MemoryRoot) -> None:
    root.make_directory("a", mode=0o750)
    root.make_directory("a/b", mode=0o755)
    root.rename("a", "c")
    write(root, "c/b/file", b"data", durable=True)
    survivor = tree.power_cut()
    assert survivor.content("c/b/file") == b"data"
    assert survivor.names("") == ["c"]
    assert stat.S_IMODE(survivor.info("c").mode) == 0o750


def test_durable_write_brings_nothing_else(tree: MemoryTree, root: MemoryRoot) -> None:
    root.make_directory("a", mode=0o755)
    root.sync()
    root.make_directory("a/sibling", mode=0o755)
    root.make_directory("elsewhere", mode=0o755)
    root.set_attributes("a", mode=0o700, owner=None, group=None)
    write(root, "a/file", b"data", durable=True)
    survivor = tree.power_cut()
    assert survivor.names("") == ["a"]
    assert survivor.names("a") == ["file"]
    assert stat.S_IMODE(survivor.info("a").mode) == 0o755
    assert picture(tree.power_cut(Everything())) == picture(tree)


def test_moves_that_exclude_each_other_reach_the_disk_in_order(tree: MemoryTree, root: MemoryRoot) -> None:
    """First b leaves a, then a enters b: the second alone would put each into the other."""
    root.make_directory("a", mode=0o755)
    root.make_directory("a/b", mode=0o755)
    root.sync()
    root.rename("a/b", "b")
    root.rename("a", "b/a")
    write(root, "a", b"in the place that was left", durable=True)
    survivor = tree.power_cut()
    assert_sound(survivor)
    assert survivor.names("b/a") == []


def test_removed_directory_does_not_come_back_half(tree: MemoryTree, root: MemoryRoot) -> None:
    root.make_directory("a", mode=0o755)
    root.sync()
    write(root, "a/file", b"data")
    root.remove_tree("a", Progress())
    write(root, "a", b"a file now", durable=True)
    survivor = tree.power_cut()
    assert survivor.content("a") == b"a file now"
    assert_sound(survivor)
    assert picture(tree.power_cut(Everything())) == picture(tree)


def test_times_of_a_copy_stay_those_of_what_came_last(tree: MemoryTree, root: MemoryRoot) -> None:
    root.make_directory("source", mode=0o755)
    root.copy_tree("source", "copy", Progress())
    write(root, "copy/file", b"data", durable=True)
    assert picture(tree.power_cut(Everything())) == picture(tree)


def test_changes_of_metadata_survive_in_their_order(tree: MemoryTree, root: MemoryRoot) -> None:
    names = ["a", "b", "c", "d"]
    for name in names:
        root.make_directory(name, mode=0o755)
    survived = {tuple(tree.power_cut(random.Random(seed)).names("")) for seed in SEEDS}
    assert survived == {tuple(names[:length]) for length in range(5)}


@pytest.mark.parametrize("replace", [False, True])
def test_content_that_was_not_synced_can_be_short_under_its_name(
    tree: MemoryTree, root: MemoryRoot, replace: bool
) -> None:
    write(root, "file", b"x" * 100, replace=replace)
    survivors = [tree.power_cut(random.Random(seed)) for seed in SEEDS]
    lengths = {survivor.info("file").size for survivor in survivors if "file" in survivor.names("")}
    assert {0, 100} < lengths
    assert max(lengths) == 100


def test_durable_replacement_is_all_or_nothing_wherever_it_is_cut(tree: MemoryTree) -> None:
    write(MemoryRoot(tree, "/simulated"), "file", b"old content", durable=True)
    found: set[bytes] = set()
    for crash in crashes(
        tree, lambda root: root.write("file", b"new", replace=True, durable=True), expected=5
    ):
        for seed in SEEDS:
            survivor = crash.power_cut(random.Random(seed))
            found.add(survivor.content("file"))
            assert_sound(survivor)
    assert found == {b"old content", b"new"}


def crashes(tree: MemoryTree, work: Callable[[MemoryRoot], None], *, expected: int) -> Iterator[MemoryTree]:
    """A copy of `tree` after a crash at each place of `work`, of which `expected` are known."""
    faults = Faults()
    work(MemoryRoot(tree.power_cut(Everything()), "/simulated", interceptor=faults))
    assert faults.mutations == expected
    for number in range(1, expected + 1):
        for after in (False, True):
            copy, faults = tree.power_cut(Everything()), Faults()
            faults.crash_at(number, after=after)
            with pytest.raises(SimulatedCrash):
                work(MemoryRoot(copy, "/simulated", interceptor=faults))
            yield copy


def test_synced_log_survives_and_the_rest_is_torn_at_sectors(tree: MemoryTree, root: MemoryRoot) -> None:
    log = root.open_log("log", size=4 * 512)
    log.write(0, b"s" * 600)
    log.sync()
    log.write(512, b"u" * 1024)
    found = {tree.power_cut(random.Random(seed)).content("log") for seed in SEEDS}
    synced = b"s" * 600
    first = [synced[512:].ljust(512, b"\0"), b"u" * 512]
    second = [bytes(512), b"u" * 512]
    assert found == {b"s" * 512 + one + other + bytes(512) for one in first for other in second}
    assert tree.power_cut().content("log") == synced.ljust(2048, b"\0")


def test_log_is_durable_as_soon_as_it_is_open(tree: MemoryTree, root: MemoryRoot) -> None:
    root.make_directory("own", mode=0o700)
    root.open_log("own/log", size=1024)
    assert tree.power_cut().content("own/log") == bytes(1024)


def test_log_whose_making_was_interrupted_is_made_whole(tree: MemoryTree) -> None:
    for crash in crashes(tree, lambda root: root.open_log("log", size=1024).close(), expected=3):
        for found in (crash, *(crash.power_cut(random.Random(seed)) for seed in SEEDS)):
            log = MemoryRoot(found, "/simulated").open_log("log", size=1024)
            assert log.read(0, 1024) == bytes(1024)
            log.write(0, b"record")
            log.sync()
            assert found.power_cut().content("log").startswith(b"record")


def test_first_sync_of_a_log_covers_what_was_written_before_it_was_opened(
    tree: MemoryTree, root: MemoryRoot
) -> None:
    log = root.open_log("log", size=1024)
    log.write(0, b"record")
    log.close()
    again = root.open_log("log", size=1024)
    assert tree.power_cut().content("log") == bytes(1024)
    again.sync()
    assert tree.power_cut().content("log").startswith(b"record")


def test_syncing_one_log_leaves_the_others_dirty(tree: MemoryTree, root: MemoryRoot) -> None:
    one, other = root.open_log("one", size=512), root.open_log("other", size=512)
    one.write(0, b"x")
    other.write(0, b"x")
    one.sync()
    survivor = tree.power_cut()
    assert survivor.content("one")[:1] == b"x"
    assert survivor.content("other")[:1] == b"\0"


def test_survivor_can_be_used_and_its_origin_stays(tree: MemoryTree, root: MemoryRoot) -> None:
    write(root, "file", b"data", durable=True)
    survivor = tree.power_cut()
    MemoryRoot(survivor, "/simulated").write("file", b"later", replace=True, durable=True)
    write(MemoryRoot(survivor, "/simulated"), "more", b"", durable=True)
    assert survivor.power_cut().content("file") == b"later"
    assert tree.content("file") == b"data"
    assert tree.names("") == ["file"]


# Any sequence of operations. Names are few so that they collide.

_PATHS = st.sampled_from(["a", "b", "a/a", "a/b", "b/a", "a/a/a"])
_STEPS = st.one_of(
    st.tuples(st.just("make"), _PATHS),
    st.tuples(st.just("write"), _PATHS, st.booleans(), st.booleans()),
    st.tuples(st.just("move"), _PATHS, _PATHS),
    st.tuples(st.just("remove"), _PATHS),
    st.tuples(st.just("remove_tree"), _PATHS),
    st.tuples(st.just("set"), _PATHS, st.sampled_from([0o700, 0o711])),
    st.tuples(st.just("copy"), _PATHS, _PATHS),
    st.tuples(st.just("log"), _PATHS, st.booleans()),
    st.tuples(st.just("sync")),
)
Step = tuple[str, *tuple[object, ...]]


def take(root: MemoryRoot, step: Step, number: int) -> None:
    """Do one step, or raise what the file system answers."""
    match step:
        case ("make", str(path)):
            root.make_directory(path, mode=0o755)
        case ("write", str(path), bool(replace), bool(durable)):
            root.write(path, b"%d" % number * 200, replace=replace, durable=durable)
        case ("move", str(source), str(target)):
            root.rename(source, target)
        case ("remove", str(path)):
            root.remove_directory(path)
        case ("remove_tree", str(path)):
            root.remove_tree(path, Progress())
        case ("set", str(path), int(mode)):
            root.set_attributes(path, mode=mode, owner=number, group=None)
        case ("copy", str(source), str(target)):
            root.copy_tree(source, target, Progress())
        case ("log", str(path), bool(durable)):
            log = root.open_log(path, size=1024)
            log.write(500, b"%d" % number * 20)
            if durable:
                log.sync()
        case ("sync",):
            root.sync()
        case _:
            raise AssertionError(step)


#: How a file system refuses what cannot be done.
_REFUSALS = {errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EINVAL}


def took(root: MemoryRoot, step: Step, number: int) -> bool:
    """Whether a step was done and not refused."""
    try:
        take(root, step, number)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        return False
    return True


@settings(max_examples=300)
@given(steps=st.lists(_STEPS, max_size=25), seed=st.integers(0, 1 << 16))
def test_any_power_cut_leaves_a_sound_tree(steps: list[Step], seed: int) -> None:
    ticks = count(1)
    tree = MemoryTree(clock=lambda: next(ticks))
    root = MemoryRoot(tree, "/simulated")
    for number, step in enumerate(steps):
        if not took(root, step, number):
            continue
        match step:
            case ("write", path, _, True):
                assert tree.power_cut().content(str(path)) == b"%d" % number * 200
            case ("sync",):
                assert picture(tree.power_cut()) == picture(tree)
    assert_sound(tree)
    assert_sound(tree.power_cut())
    assert_sound(tree.power_cut(random.Random(seed)))
    # Whatever was brought to the disk before its turn, in the end it is all the same.
    assert picture(tree.power_cut(Everything())) == picture(tree)
    tree.sync()
    assert picture(tree.power_cut()) == picture(tree)


# Space.


def test_full_tree_refuses_files_and_directories_and_takes_them_again_later() -> None:
    tree = MemoryTree(capacity=5 * 4096)
    root = MemoryRoot(tree, "/simulated")
    write(root, "file", bytes(4 * 4096))
    assert root.space().available == 0
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        root.make_directory("directory", mode=0o755)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        write(root, "file", b"x", replace=True)
    assert root.names("") == ["file"]
    root.remove_file("file")
    root.make_directory("directory", mode=0o755)
    assert root.space().allocation == 2 * 4096


def test_failed_copy_leaves_what_it_made_to_the_caller() -> None:
    tree = MemoryTree(capacity=6 * 4096)
    root = MemoryRoot(tree, "/simulated")
    root.make_directory("source", mode=0o755)
    write(root, "source/file", bytes(3 * 4096))
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        root.copy_tree("source", "copy", Progress())
    root.remove_tree("copy", Progress())
    assert_sound(tree)


# Trees that a crash leaves half done.


def test_tree_can_be_half_removed_and_half_copied(tree: MemoryTree, root: MemoryRoot) -> None:
    root.make_directory("a", mode=0o755)
    write(root, "a/one", b"1")
    write(root, "a/two", b"2")
    left = {len(crash.below("a")) for crash in crashes(tree, remove_a, expected=3) if "a" in crash.names("")}
    assert left == {1, 2, 3}
    made = {
        len(crash.below("b"))
        for crash in crashes(tree, lambda root: root.copy_tree("a", "b", Progress()), expected=6)
        if "b" in crash.names("")
    }
    assert made == {1, 2, 3}


def remove_a(root: MemoryRoot) -> None:
    root.remove_tree("a", Progress())
