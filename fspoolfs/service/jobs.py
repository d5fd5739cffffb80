"""Jobs: work that takes longer than a moment, watched and cancelled through control files."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from fspoolfs.errors import FspoolError, InProgressError, StorageError
from fspoolfs.progress import Progress

log = logging.getLogger(__name__)


class Job:
    """One piece of work: `verb` and `subject` for a person, the progress, and how it ended."""

    __slots__ = ("error", "finished", "progress", "subject", "verb")

    def __init__(self, verb: str, subject: str) -> None:
        self.verb = verb
        self.subject = subject
        self.progress = Progress()
        self.finished = trio.Event()
        self.error: FspoolError | None = None

    @property
    def running(self) -> bool:
        return not self.finished.is_set()

    def amount(self) -> str:
        """How far it is: "43%", "1200 files", or nothing when that is not known."""
        percent = self.progress.percent
        if percent is not None:
            return f"{percent}%"
        return f"{self.progress.done} {self.progress.unit}" if self.progress.unit else ""

    def line(self) -> str:
        """One line for the `job` file: the progress, or how it ended."""
        if self.running:
            return " ".join(filter(None, (self.progress.phase or self.verb, self.amount())))
        return "done" if self.error is None else f"failed: {self.error}"

    async def outcome(self, grace: float) -> None:
        """Wait up to `grace` seconds for the end; raise how it failed.

        Raises `InProgressError` when it goes on.
        """
        with trio.move_on_after(grace):
            await self.finished.wait()
        if self.running:
            raise InProgressError(
                f"{self.verb} of {self.subject} goes on; the file `job` tells how far it is"
            )
        if self.error is not None:
            raise self.error


class JobRunner:
    """Runs jobs in a nursery of the daemon, so that they outlive the request that asked."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def start(self, job: Job, work: Callable[[Job], Awaitable[None]]) -> Job:
        """Run `work(job)` in the background; what it raises becomes the job's error."""
        self._nursery.start_soon(self._run, job, work, name=f"{job.verb} {job.subject}")
        return job

    async def _run(self, job: Job, work: Callable[[Job], Awaitable[None]]) -> None:
        try:
            await work(job)
        except FspoolError as error:
            job.error = error
            log.info("%s of %s failed: %s", job.verb, job.subject, error)
        except OSError as error:
            job.error = StorageError.from_os(f"{job.verb} of {job.subject}", error)
            log.info("%s", job.error)
        except Exception as error:
            log.exception("%s of %s: unforeseen", job.verb, job.subject)
            job.error = FspoolError(f"{job.verb} of {job.subject} failed for a reason not foreseen: {error}")
        except BaseException:
            job.error = FspoolError(f"{job.verb} of {job.subject} was ended with the daemon")
            raise
        finally:
            job.finished.set()
