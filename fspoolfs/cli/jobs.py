"""Requests that may take long: how far they are, cancelled by Ctrl-C, and how they ended.

The request is made in a thread, for a write is answered only when the grace time is over. Meanwhile
this one looks at the object's `status` and `job`, and writes `cancel` into the latter.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import NoReturn

from fspoolfs.cli.bar import Bar
from fspoolfs.cli.client import Place
from fspoolfs.errors import CancelledError, FspoolError, InProgressError

#: Seconds until a request counts as long, and between two looks at one that does.
_QUICK = 0.4
_STEP = 0.2
#: States in which something is still done that is no job.
_PASSING = frozenset(("building", "starting", "stopping", "deleting", "creating", "busy"))
#: How the last line of a `job` begins.
_DONE, _FAILED, _NONE = "done", "failed: ", "none"


def carry_out(
    request: Callable[[], None], place: Place, label: str, *, goes_on: bool = False, stays: bool = True
) -> None:
    """Make `request` and return when all that it asked for is done.

    `place` is the object whose job it becomes; `label` says on a terminal what is done. With `goes_on`
    a request that was answered with success may still be going on; without `stays` the object is not there
    when it has ended well. Raises `FspoolError` with how it failed.
    """
    worker = _Worker(request)
    with _Interrupts() as interrupts:
        worker.start()
        if worker.wait(_QUICK) and worker.answer() is None and not goes_on:
            return
        with _Follower(place, label, interrupts, stays=stays) as follower:
            while not worker.wait(0):
                follower.look()
            going_on = worker.answer()
            if going_on is not None:
                follower.end(str(going_on))
            elif goes_on:
                follower.follow()


class _Interrupts:
    """Counts Ctrl-C instead of being interrupted anywhere: the main thread's, while a request is made."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> _Interrupts:
        self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


class _Worker(threading.Thread):
    """Makes the request. A daemon thread: after a second Ctrl-C nobody waits for it."""

    def __init__(self, request: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._request = request
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._request()
        except BaseException as error:
            self.error = error

    def wait(self, seconds: float) -> bool:
        self.join(seconds)
        return not self.is_alive()

    def answer(self) -> InProgressError | None:
        """That it goes on, or `None` when it is done. Raises how it failed."""
        if self.error is None or isinstance(self.error, InProgressError):
            return self.error
        raise self.error


class _Follower:
    """Follows the job of one object. The job that was running when it was first looked at is kept open,
    for how it ended is told to whoever has its file open, also where the object goes with it.
    """

    def __init__(self, place: Place, label: str, interrupts: _Interrupts, *, stays: bool) -> None:
        self._place = place
        self._stays = stays
        self._interrupts = interrupts
        self._bar = Bar(label)
        self._job: int | None = None
        self._last = ""
        self._cancelled = False

    def __enter__(self) -> _Follower:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self._job is not None:
            os.close(self._job)

    def look(self) -> None:
        """Wait a moment, and show how far it is."""
        if self._job is None:
            self._open()
        time.sleep(_STEP)
        self._bar.show(" ".join(_words(self._place)[1:]))
        self._heed()

    def follow(self) -> None:
        """Wait for the end of the job, if one is running. Raises how it failed."""
        if self._job is None:
            self._open()
        if self._job is None:
            return
        while self._outcome is None:
            self._bar.show(self._last)
            self._heed()
            self._next()
        if self._last.startswith(_FAILED):
            self._fail(self._last.removeprefix(_FAILED))

    def end(self, refusal: str) -> None:
        """Wait for the end; `refusal` is what the request was answered with. Raises how it failed."""
        self.follow()
        if self._job is not None and self._outcome == _DONE:
            return
        if self._last.startswith(_FAILED):
            # It ended before it was looked at.
            self._fail(self._last.removeprefix(_FAILED))
        self._settle(refusal)

    def _fail(self, sentence: str) -> NoReturn:
        if self._cancelled:
            raise CancelledError(sentence)
        raise FspoolError(sentence)

    def _heed(self) -> None:
        """The first Ctrl-C cancels the job, as soon as there is one; the second leaves it to itself."""
        if self._interrupts.count > 1:
            raise KeyboardInterrupt
        if self._interrupts.count and not self._cancelled:
            with suppress(FspoolError):
                self._place.write("job", "cancel\n")
                self._cancelled = True

    @property
    def _outcome(self) -> str | None:
        line = self._last
        return line if line in (_DONE, _NONE) or line.startswith(_FAILED) else None

    def _open(self) -> None:
        """Take hold of the job that is running; of one that has ended only the last line is kept."""
        self._last = ""
        try:
            job = os.open(self._place.path / "job", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return  # not there yet
        self._job = job
        self._next()
        if self._outcome is not None:
            os.close(job)
            self._job = None

    def _next(self) -> None:
        """The next line, a second later at most."""
        assert self._job is not None
        text = os.read(self._job, 1 << 12).decode(errors="replace")
        self._last = text.rstrip("\n").rpartition("\n")[2] if text else _NONE

    def _settle(self, refusal: str) -> None:
        """Wait for what goes on without a job: until the object's state says that it rests."""

        while (status := _words(self._place)) and status[0] in _PASSING:
            time.sleep(_STEP)
            self._heed()
        if not status:
            if self._stays:
                self._fail(f"{self._place.what} did not come to be; `fspoolfs events` tells why")
            return
        # A failure is the object's last error, unless that is still the answer that the request got.
        said = self._place.last_error()
        if said and said != refusal:
            self._fail(said)


def _words(place: Place) -> list[str]:
    """The words of the object's `status`; none where it is not there."""
    try:
        return place.read("status").split()
    except FspoolError:
        return []
