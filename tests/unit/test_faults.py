"""The faults of the simulator: failures, hangs, crashes."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable

import pytest

from fspoolfs.backends.memory import MemoryRoot, MemoryTree
from fspoolfs.backends.simulator import Faults, SimulatedCrash, SimulatedHost
from fspoolfs.progress import Progress


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def faulty(faults: Faults) -> MemoryRoot:
    return MemoryRoot(MemoryTree(), "/simulated", interceptor=faults)


def outcomes(call: Callable[[], object], times: int) -> list[int]:
    """The errno of each of several calls, 0 for success."""
    found = []
    for _ in range(times):
        try:
            call()
        except OSError as error:
            found.append(error.errno or -1)
        else:
            found.append(0)
    return found


def test_failure_strikes_after_some_calls_and_a_few_times(faults: Faults, faulty: MemoryRoot) -> None:
    faults.fail("stat", errno.EIO, after=1, times=2)
    assert outcomes(lambda: faulty.stat(""), 5) == [0, errno.EIO, errno.EIO, 0, 0]


def test_failure_without_end_lasts(faults: Faults, faulty: MemoryRoot) -> None:
    faults.fail("stat", errno.ESTALE, times=None)
    assert set(outcomes(lambda: faulty.stat(""), 20)) == {errno.ESTALE}


def test_failure_strikes_only_its_operation_and_path(faults: Faults, faulty: MemoryRoot) -> None:
    faults.fail("make_directory", errno.EROFS, path="b")
    faulty.make_directory("a", mode=0o755)
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        faulty.make_directory("b", mode=0o755)
    assert faulty.names("") == ["a"]


@pytest.mark.parametrize("operation", ["log_read", "log_write", "log_sync"])
def test_log_can_fail_too(faults: Faults, faulty: MemoryRoot, operation: str) -> None:
    log = faulty.open_log("log", size=512)
    faults.fail(operation, errno.EIO, path="log")
    calls = {
        "log_read": lambda: log.read(0, 1),
        "log_write": lambda: log.write(0, b"x"),
        "log_sync": log.sync,
    }
    assert outcomes(calls[operation], 2) == [errno.EIO, 0]


def test_fault_of_an_unknown_operation_is_refused(faults: Faults) -> None:
    with pytest.raises(ValueError, match="mkdir"):
        faults.fail("mkdir", errno.EIO)
    with pytest.raises(ValueError, match="mkdir"):
        faults.hang("mkdir")


def test_hanging_call_waits_for_its_release_and_holds_up_no_other(faults: Faults, faulty: MemoryRoot) -> None:
    with faults.hang("make_directory", path="slow") as hang:
        victim = threading.Thread(target=lambda: faulty.make_directory("slow", mode=0o755))
        victim.start()
        assert hang.wait_until_entered(timeout=10)
        faulty.make_directory("quick", mode=0o755)
        assert faulty.names("") == ["quick"]
    victim.join(timeout=10)
    assert sorted(faulty.names("")) == ["quick", "slow"]


def test_call_that_comes_after_the_release_does_not_hang(faults: Faults, faulty: MemoryRoot) -> None:
    faults.hang("stat").release()
    assert stat.S_ISDIR(faulty.stat("").mode)


@pytest.mark.parametrize("operation", ["stat", "make_directory"])
def test_call_that_hung_while_the_daemon_died_never_happens(
    faults: Faults, faulty: MemoryRoot, operation: str
) -> None:
    raised: list[BaseException] = []
    calls: dict[str, Callable[[], object]] = {
        "stat": lambda: faulty.stat(""),
        "make_directory": lambda: faulty.make_directory("slow", mode=0o755),
    }

    def call() -> None:
        try:
            calls[operation]()
        except SimulatedCrash as crash:
            raised.append(crash)

    with faults.hang(operation) as hang:
        victim = threading.Thread(target=call)
        victim.start()
        assert hang.wait_until_entered(timeout=10)
        faults.crash()
    victim.join(timeout=10)
    assert len(raised) == 1
    assert faulty.tree.names("") == []


def test_mutations_are_counted_and_looking_is_none(faults: Faults, faulty: MemoryRoot) -> None:
    faulty.make_directory("a", mode=0o755)
    assert faults.mutations == 1
    faulty.stat("a")
    list(faulty.entries(""))
    faulty.measure("", Progress())
    assert faults.mutations == 1
    faulty.write("a/file", b"data", replace=False, durable=False)
    assert faults.mutations == 3
    faulty.remove_tree("a", Progress())
    assert faults.mutations == 5
    faulty.sync()
    assert faults.mutations == 6


@pytest.mark.parametrize(("after", "made"), [(False, ["a"]), (True, ["a", "b"])])
def test_crash_comes_before_or_after_the_change_and_ends_everything(
    faults: Faults, faulty: MemoryRoot, after: bool, made: list[str]
) -> None:
    faulty.make_directory("a", mode=0o755)
    faults.crash_at(1, after=after)
    with pytest.raises(SimulatedCrash):
        faulty.make_directory("b", mode=0o755)
    assert faults.crashed
    for call in (lambda: faulty.stat(""), lambda: faulty.remove_directory("a"), faulty.space, faulty.sync):
        with pytest.raises(SimulatedCrash):
            call()
    assert faulty.tree.names("") == made


def test_crash_is_counted_from_now(faults: Faults, faulty: MemoryRoot) -> None:
    faulty.make_directory("a", mode=0o755)
    faults.crash_at(2)
    faulty.make_directory("b", mode=0o755)
    with pytest.raises(SimulatedCrash):
        faulty.make_directory("c", mode=0o755)
    with pytest.raises(ValueError, match="from 1"):
        faults.crash_at(0)


def test_crash_after_a_change_that_fails_is_a_crash(faults: Faults, faulty: MemoryRoot) -> None:
    faults.crash_at(1, after=True)
    with pytest.raises(SimulatedCrash):
        faulty.remove_directory("missing")


def test_crash_stops_work_that_another_thread_has_begun(faults: Faults, faulty: MemoryRoot) -> None:
    class Fatal(Progress):
        def advance(self, count: int = 1) -> None:
            faults.crash()

    faulty.make_directory("a", mode=0o755)
    faulty.make_directory("a/b", mode=0o755)
    with pytest.raises(SimulatedCrash):
        faulty.remove_tree("a", Fatal())
    assert faulty.tree.below("") == ["", "a"]


def test_nothing_that_handles_exceptions_survives_a_crash() -> None:
    assert not issubclass(SimulatedCrash, Exception)


# Hosts.


def test_killed_daemon_leaves_what_it_did_and_can_do_no_more() -> None:
    host = SimulatedHost(trees={"/tank": MemoryTree()})
    old = MemoryRoot(host.trees["/tank"], "/tank", interceptor=host.faults)
    old.make_directory("a", mode=0o755)
    after = host.killed()
    with pytest.raises(SimulatedCrash):
        old.make_directory("b", mode=0o755)
    assert after.trees["/tank"].names("") == ["a"]
    assert not after.faults.crashed


def test_power_cut_of_a_host_cuts_all_its_trees() -> None:
    host = SimulatedHost(capacity=1 << 20, trees={"/one": MemoryTree(), "/two": MemoryTree()})
    for tree in host.trees.values():
        MemoryRoot(tree, "/x").make_directory("lost", mode=0o755)
    after = host.power_cut()
    assert [tree.names("") for tree in after.trees.values()] == [[], []]
    assert after.capacity == 1 << 20
    assert host.faults.crashed
