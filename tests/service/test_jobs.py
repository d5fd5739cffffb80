"""Jobs: how they end, what they tell, how long a request waits for one."""

from __future__ import annotations

import errno

import pytest
import trio

from fspoolfs.errors import BusyError, CancelledError, FspoolError, InProgressError
from fspoolfs.service.jobs import Job, JobRunner


async def run(job: Job, error: Exception | None) -> None:
    async def work(job: Job) -> None:
        if error is not None:
            raise error

    async with trio.open_nursery() as nursery:
        JobRunner(nursery).start(job, work)


async def test_a_job_that_ends_is_done() -> None:
    job = Job("build", "pool tank")
    await run(job, None)
    assert not job.running
    assert job.line() == "done"
    await job.outcome(1)


@pytest.mark.parametrize(
    ("error", "number", "sentence"),
    [
        (BusyError("in use by process 7"), errno.EBUSY, "in use by process 7"),
        (OSError(errno.ENOSPC, "x"), errno.ENOSPC, "build of pool tank: No space left on device"),
        (OSError("without a number"), errno.EIO, "build of pool tank: Input/output error"),
    ],
    ids=["refusal", "storage", "storage without a number"],
)
async def test_a_job_that_fails_says_why_to_who_waits_and_in_its_line(
    error: Exception, number: int, sentence: str
) -> None:
    job = Job("build", "pool tank")
    await run(job, error)
    with pytest.raises(FspoolError) as caught:
        await job.outcome(1)
    assert (caught.value.errno, caught.value.sentence) == (number, sentence)
    assert job.line() == f"failed: {sentence}"


async def test_an_error_not_foreseen_ends_the_job_alone(caplog: pytest.LogCaptureFixture) -> None:
    job = Job("build", "pool tank")
    await run(job, ZeroDivisionError("by zero"))
    with pytest.raises(FspoolError, match="not foreseen: by zero") as caught:
        await job.outcome(1)
    assert caught.value.errno == errno.EIO
    assert "ZeroDivisionError" in caplog.text


async def test_who_does_not_want_to_wait_is_told_that_it_goes_on() -> None:
    job, gate = Job("clone", "item web to copy"), trio.Event()

    async def work(job: Job) -> None:
        job.progress.begin("copying", unit="bytes", total=200)
        job.progress.advance(86)
        await gate.wait()

    async with trio.open_nursery() as nursery:
        JobRunner(nursery).start(job, work)
        with pytest.raises(InProgressError, match="clone of item web to copy goes on"):
            await job.outcome(0.01)
        assert job.line() == "copying 43%"
        gate.set()
        await job.outcome(5)
    assert job.line() == "done"


async def test_work_without_a_known_end_tells_what_it_has_done() -> None:
    job = Job("measure", "item web")
    job.progress.begin("measuring", unit="files")
    job.progress.advance(1200)
    assert job.line() == "measuring 1200 files"
    job.progress.begin("")
    assert job.line() == "measure"


async def test_a_cancelled_job_stops_at_its_next_step() -> None:
    job = Job("clone", "item web to copy")

    async def work(job: Job) -> None:
        while True:
            job.progress.advance()
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        JobRunner(nursery).start(job, work)
        job.progress.cancel()
        with trio.fail_after(5):
            await job.finished.wait()
    assert isinstance(job.error, CancelledError)


async def test_a_job_that_ends_with_the_daemon_says_so() -> None:
    job = Job("clone", "item web to copy")

    async def work(job: Job) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        JobRunner(nursery).start(job, work)
        nursery.cancel_scope.cancel()
    assert job.line() == "failed: clone of item web to copy was ended with the daemon"
