"""From an error to an errno: what the kernel gets, what the object remembers, what the log has."""

from __future__ import annotations

import errno
import logging

import pyfuse3
import pytest
import trio

from fspoolfs import errors
from fspoolfs.ops.guard import Guard

from .conftest import POOL, Kernel


def every_kind() -> list[type[errors.FspoolError]]:
    kinds = [one for one in vars(errors).values() if isinstance(one, type)]
    return [one for one in kinds if issubclass(one, errors.FspoolError)]


async def refuse(kernel: Kernel, error: BaseException, *, limit: float = 5.0) -> int:
    """The errno that the kernel gets when a request ends by `error`."""
    directory = kernel.operations.inodes.directory(await kernel.inode(POOL))

    async def work() -> None:
        if isinstance(error, trio.TooSlowError):
            await trio.sleep_forever()
        raise error

    with pytest.raises(pyfuse3.FUSEError) as caught:
        await Guard(kernel.service.metrics, limit=limit).run("mkdir", directory, "x", 1001, work)
    return int(caught.value.errno)


@pytest.mark.parametrize("kind", every_kind(), ids=lambda kind: kind.__name__)
async def test_every_error_of_the_domain_becomes_its_errno(
    kind: type[errors.FspoolError], kernel: Kernel
) -> None:
    assert await refuse(kernel, kind("because")) == kind.errno
    assert await kernel.read(f"{POOL}/last_error") == b"because\n"


async def test_an_error_of_the_storage_keeps_its_errno_and_says_what_was_done(kernel: Kernel) -> None:
    assert await refuse(kernel, OSError(errno.ENOSPC, "x", "secret/path")) == errno.ENOSPC
    assert await kernel.read(f"{POOL}/last_error") == b"mkdir /pools/tank/x: No space left on device\n"


async def test_an_error_not_foreseen_is_eio_with_a_traceback_in_the_log(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    assert await refuse(kernel, ZeroDivisionError("by zero")) == errno.EIO
    assert b"not foreseen" in await kernel.read(f"{POOL}/last_error")
    [record] = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


async def test_a_request_that_takes_too_long_is_answered(kernel: Kernel) -> None:
    with trio.fail_after(5):
        assert await refuse(kernel, trio.TooSlowError(), limit=0.01) == errno.ETIMEDOUT
    assert b"did not answer in time" in await kernel.read(f"{POOL}/last_error")


async def test_a_refusal_is_logged_with_path_and_user(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    await refuse(kernel, errors.BusyError("in use"))
    assert caplog.messages[-1] == "mkdir /pools/tank/x uid=1001: in use"
    assert caplog.records[-1].levelno == logging.WARNING


async def test_a_request_that_goes_on_is_no_complaint_in_the_log(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    assert await refuse(kernel, errors.InProgressError("goes on")) == errno.EINPROGRESS
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert await kernel.read(f"{POOL}/last_error") == b"goes on\n"


async def test_refusals_are_counted_by_errno_and_requests_timed(kernel: Kernel) -> None:
    for _ in range(3):
        await refuse(kernel, errors.BusyError("in use"))
    text = (await kernel.read("metrics")).decode()
    assert 'fspoolfs_request_failures_total{errno="EBUSY"} 3.0' in text
    assert 'fspoolfs_request_seconds_count{request="mkdir"}' in text


async def test_an_error_that_already_is_an_errno_is_passed_on(kernel: Kernel) -> None:
    assert await refuse(kernel, pyfuse3.FUSEError(errno.ESTALE)) == errno.ESTALE
    assert await kernel.read(f"{POOL}/last_error") == b""


async def test_cancellation_is_not_taken_for_an_error(kernel: Kernel) -> None:
    directory = kernel.operations.inodes.directory(await kernel.inode(POOL))
    with trio.CancelScope() as scope:
        scope.cancel()
        await Guard(kernel.service.metrics, limit=5).run("mkdir", directory, "x", 0, trio.sleep_forever)
    assert scope.cancelled_caught
