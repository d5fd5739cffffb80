"""The committer: order, shared syncs, failures and their undoing, what is not journalled together."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from uuid import UUID, uuid4

import pytest
import trio

from fspoolfs.backends import layout
from fspoolfs.backends.memory import MemoryRoot, MemoryTree
from fspoolfs.errors import BusyError, FspoolError, RollbackError, TooLargeError
from fspoolfs.service.committer import BATCH, Committer
from fspoolfs.service.journal import Journal
from support.wait import eventually

from .scenes import LIMIT, FirstHangs


class Recorded:
    """A change that writes down what is done to it, and fails where it is told to."""

    def __init__(
        self,
        name: str,
        story: list[str],
        *,
        payload: bytes = b"",
        enters: tuple[str, ...] = (),
        leaves: tuple[str, ...] = (),
        uuid: UUID | None = None,
        failing: dict[str, Exception] | None = None,
    ) -> None:
        self.name = name
        self.uuid = uuid or uuid4()
        self.enters = enters
        self.leaves = leaves
        self.error: Exception | None = None
        self.settled = trio.Event()
        self._story = story
        self._payload = payload or name.encode()
        self._failing = failing or {}

    def _do(self, what: str) -> None:
        self._story.append(f"{what} {self.name}")
        if what in self._failing:
            raise self._failing[what]

    def prepare(self) -> bytes:
        self._do("prepare")
        return self._payload

    def apply(self) -> None:
        self._do("apply")

    def undo(self) -> bytes:
        self._do("undo")
        return b"undone " + self.name.encode()

    def settle(self, error: Exception | None) -> None:
        trio.lowlevel.current_task()  # raises outside the event loop
        self.error = error
        self._story.append(f"settle {self.name}")
        self.settled.set()


class Bench:
    """A committer over a root in memory; `story` tells what happened, with the syncs between."""

    def __init__(self, *, segment: int = 1 << 16) -> None:
        self.story: list[str] = []
        self.faults = FirstHangs()
        self.tree = MemoryTree()
        root = MemoryRoot(self.tree, "/tank", interceptor=self)
        root.make_directory(layout.OWN, mode=0o700)
        self.segment = segment
        self.journal = Journal.open(root, segment=segment)
        self.story.clear()
        self.committer = Committer("tank", root, self.journal, trio.lowlevel.current_trio_token())

    def enter(self, operation: str, path: str) -> None:
        if operation in ("log_sync", "sync"):
            self.story.append({"log_sync": "journal synced", "sync": "storage synced"}[operation])
        self.faults.enter(operation, path)

    def change(self) -> AbstractContextManager[None]:
        return self.faults.change()

    def recorded(self, name: str, **more: object) -> Recorded:
        return Recorded(name, self.story, **more)  # type: ignore[arg-type]

    async def together(self, *changes: Recorded) -> None:
        """Let `changes` come while the committer is held up, so that they are carried out together."""
        first = self.recorded("first")
        with self.faults.arm("log_sync") as hang:
            self.committer.submit(first)
            assert await trio.to_thread.run_sync(hang.wait_until_entered, LIMIT)
            for change in changes:
                self.committer.submit(change)
        await self.done(first, *changes)
        self.story[:] = [line for line in self.story if not line.endswith(" first")]
        self.story.remove("journal synced")

    async def done(self, *changes: Recorded) -> None:
        with trio.fail_after(LIMIT):
            for change in changes:
                await change.settled.wait()

    def journalled(self) -> list[bytes]:
        """What the next start would replay."""
        journal = Journal.open(MemoryRoot(self.tree.power_cut(), "/tank"), segment=self.segment)
        return [record.payload for record in journal.pending]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    found = Bench()
    yield found
    with trio.fail_after(LIMIT):
        await found.committer.close()


async def test_a_change_is_journalled_and_synced_before_it_is_applied(bench: Bench) -> None:
    change = bench.recorded("one")
    bench.committer.submit(change)
    await bench.done(change)
    assert bench.story == ["prepare one", "journal synced", "apply one", "settle one"]
    assert change.error is None
    assert bench.journalled() == [b"one"]


async def test_changes_that_wait_share_one_sync_and_keep_their_order(bench: Bench) -> None:
    changes = [bench.recorded(f"c{number}") for number in range(10)]
    await bench.together(*changes)
    assert bench.story == [
        *(f"prepare c{number}" for number in range(10)),
        "journal synced",
        *(f"apply c{number}" for number in range(10)),
        *(f"settle c{number}" for number in range(10)),
    ]


async def test_a_batch_has_an_end(bench: Bench) -> None:
    await bench.together(*(bench.recorded(f"c{number}") for number in range(BATCH + 1)))
    assert bench.story.count("journal synced") == 2


@pytest.mark.parametrize(
    ("failure", "number"),
    [
        (BusyError("in use"), errno.EBUSY),
        (OSError(errno.EIO, os.strerror(errno.EIO)), errno.EIO),
        (TooLargeError("too large"), errno.EFBIG),
    ],
    ids=["refused", "storage", "too large"],
)
async def test_a_change_that_is_refused_leaves_the_others_alone(
    bench: Bench, failure: Exception, number: int
) -> None:
    bad = bench.recorded("bad", failing={"prepare": failure})
    good = [bench.recorded("one"), bench.recorded("two")]
    await bench.together(good[0], bad, good[1])
    assert isinstance(bad.error, FspoolError)
    assert bad.error.errno == number
    assert [change.error for change in good] == [None, None]
    assert "apply bad" not in bench.story
    assert bench.journalled() == [b"first", b"one", b"two"]


async def test_a_change_that_fails_is_undone_and_that_is_journalled(bench: Bench) -> None:
    bad = bench.recorded("bad", failing={"apply": OSError(errno.ENOSPC, "x")})
    await bench.together(bad, bench.recorded("good"))
    assert isinstance(bad.error, FspoolError)
    assert bad.error.errno == errno.ENOSPC
    assert bench.story == [
        *("prepare bad", "prepare good", "journal synced", "apply bad", "undo bad", "apply good"),
        *("journal synced", "settle bad", "settle good"),
    ]
    assert bench.journalled() == [b"first", b"bad", b"good", b"undone bad"]
    assert bench.committer.broken is None


async def test_after_an_undo_that_fails_nothing_is_changed_any_more(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bad = bench.recorded(
        "bad", failing={"apply": OSError(errno.ENOSPC, "x"), "undo": OSError(errno.EIO, "y")}
    )
    await bench.together(bad)
    assert isinstance(bad.error, RollbackError)
    assert "undoing it failed too" in str(bad.error)
    later = bench.recorded("later")
    bench.committer.submit(later)
    await bench.done(later)
    assert later.error is bad.error
    assert "prepare later" not in bench.story
    assert "undoing it failed too" in caplog.text


async def test_a_change_in_one_batch_with_an_undo_that_fails_is_not_applied(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """It would be replayed on a state that nobody knows."""
    bad = bench.recorded(
        "bad", failing={"apply": OSError(errno.ENOSPC, "x"), "undo": OSError(errno.EIO, "y")}
    )
    after = bench.recorded("after")
    await bench.together(bad, after)
    if after.error is None:
        assert "apply after" in bench.story
    else:
        assert "apply after" not in bench.story


@pytest.mark.parametrize("call", ["log_write", "log_sync"])
async def test_a_journal_that_cannot_be_written_fails_who_waits_for_it(
    bench: Bench, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    change = bench.recorded("one")
    bench.faults.fail(call, errno.EIO)
    bench.committer.submit(change)
    await bench.done(change)
    assert isinstance(change.error, FspoolError)
    assert change.error.errno == errno.EIO
    assert "apply one" not in bench.story
    # What was written without being synced may or may not be on the disk: nothing may follow it.
    assert (bench.committer.broken is not None) == (call == "log_sync")


async def test_a_defect_ends_no_thread_silently(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bad = bench.recorded("bad", failing={"apply": ZeroDivisionError("by zero")})
    other = bench.recorded("other")
    await bench.together(bad, other)
    assert "not foreseen" in str(bad.error)
    later = bench.recorded("later")
    bench.committer.submit(later)
    await bench.done(later)
    assert "not foreseen" in str(later.error)
    assert "ZeroDivisionError" in caplog.text


async def test_what_one_item_has_left_another_enters_after_a_sync_of_the_storage(bench: Bench) -> None:
    leaving = bench.recorded("leaving", leaves=("path:web",))
    entering = bench.recorded("entering", enters=("path:web",))
    elsewhere = bench.recorded("elsewhere", enters=("path:web2", "name:web"))
    await bench.together(leaving, elsewhere, entering)
    story = bench.story
    assert story.index("apply leaving") < story.index("storage synced") < story.index("prepare entering")
    assert story.count("storage synced") == 1
    # A power cut now replays the entering, and no longer the leaving.
    assert bench.journalled() == [b"entering"]


async def test_an_item_returns_to_where_it_was_without_a_sync(bench: Bench) -> None:
    leaving = bench.recorded("leaving", leaves=("path:web",))
    entering = bench.recorded("entering", enters=("path:web",), uuid=leaving.uuid)
    await bench.together(leaving, entering)
    assert "storage synced" not in bench.story


async def test_what_failed_to_enter_a_place_counts_as_having_left_it(bench: Bench) -> None:
    """Its undoing could be replayed."""
    failing = bench.recorded("bad", enters=("path:web",), failing={"apply": OSError(errno.EIO, "x")})
    await bench.together(failing)
    entering = bench.recorded("entering", enters=("path:web",))
    bench.committer.submit(entering)
    await bench.done(entering)
    assert bench.story.index("storage synced") < bench.story.index("prepare entering")


async def test_a_full_journal_is_emptied_by_syncing_the_storage() -> None:
    bench = Bench(segment=1024)
    changes = [bench.recorded(f"c{number}", payload=b"x" * 300) for number in range(20)]
    await bench.together(*changes)
    assert all(change.error is None for change in changes)
    assert bench.story.count("storage synced") >= 2
    for number in range(20):
        before = bench.story[: bench.story.index(f"apply c{number}")]
        assert "journal synced" in before[before.index(f"prepare c{number}") :], number
    await bench.committer.close()


async def test_a_payload_that_no_journal_holds_is_refused() -> None:
    bench = Bench(segment=1024)
    change, other = bench.recorded("big", payload=b"x" * 2000), bench.recorded("other")
    await bench.together(change, other)
    assert isinstance(change.error, TooLargeError)
    assert other.error is None
    await bench.committer.close()


async def test_closing_carries_out_what_waits_and_leaves_nothing_to_replay() -> None:
    bench = Bench()
    changes = [bench.recorded(f"c{number}") for number in range(3)]
    for change in changes:
        bench.committer.submit(change)
    with trio.fail_after(LIMIT):
        await bench.committer.close()
    await bench.done(*changes)
    assert [change.error for change in changes] == [None] * 3
    assert set(bench.journalled()) <= {b""}


async def test_an_idle_committer_is_closed_without_a_thread() -> None:
    bench = Bench()
    await trio.to_thread.run_sync(bench.committer.close_idle)
    with trio.fail_after(LIMIT):
        await bench.committer.close()
    assert bench.journalled() == []
    assert not any(thread.name.startswith("commit-") for thread in threading.enumerate())


async def test_one_at_work_is_not_closed_before_it_is_done() -> None:
    bench = Bench()
    change = bench.recorded("one")
    bench.committer.submit(change)
    await trio.to_thread.run_sync(bench.committer.close_idle)
    with trio.fail_after(LIMIT):
        await bench.committer.close()
    await bench.done(change)
    assert change.error is None
    assert set(bench.journalled()) <= {b""}


@pytest.mark.parametrize("call", ["sync", "log_sync", "log_write"])
async def test_closing_tells_what_the_storage_answered(call: str) -> None:
    bench = Bench()
    change = bench.recorded("one")
    bench.committer.submit(change)
    await bench.done(change)
    bench.faults.fail(call, errno.EIO)
    with pytest.raises(FspoolError, match="close the journal of pool tank: Input/output error"):
        await bench.committer.close()
    # What was done is done, and whatever the journal says can be replayed.
    assert set(bench.journalled()) <= {b"one", b""}


async def test_the_journal_is_marked_when_nothing_has_come_for_a_while(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fspoolfs.service.committer.SETTLE_TIME", 0.05)
    change = bench.recorded("one")
    bench.committer.submit(change)
    await bench.done(change)
    await _eventually(lambda: set(bench.journalled()) <= {b""})


async def test_an_idle_committer_has_no_thread_and_gets_one_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fspoolfs.service.committer.SETTLE_TIME", 0.01)
    monkeypatch.setattr("fspoolfs.service.committer.IDLE_TIME", 0.01)
    for name in ("one", "two"):
        change = bench.recorded(name)
        bench.committer.submit(change)
        await bench.done(change)
        await _eventually(lambda: not _threads())
    assert bench.journalled()[-1:] in ([], [b""])


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "commit-tank"]


async def _eventually(condition: Callable[[], bool]) -> None:
    await trio.to_thread.run_sync(lambda: eventually(condition, what="the committer is idle"))
