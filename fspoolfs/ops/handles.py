"""Open files: snapshots for readers, documents in the making, the event log, jobs, poll(2)."""

from __future__ import annotations

import select
from collections.abc import Callable

import trio
from pyfuse3 import PollHandle

from fspoolfs.errors import FspoolError, ImmutableError, InvalidError
from fspoolfs.model.feed import DocumentFeed
from fspoolfs.service.access import Caller
from fspoolfs.service.events import EventLog
from fspoolfs.service.jobs import Job
from fspoolfs.tree.node import Directory, File, Style
from fspoolfs.tree.scratch import ScratchFile

#: Seconds that a read of a job's progress waits for the next line.
LINE_INTERVAL = 1.0


class Handle:
    """An open file. `caller` is who opened it: reads and writes carry no identity of their own."""

    def __init__(self, directory: Directory, file: File[Directory], caller: Caller) -> None:
        self.directory = directory
        self.file = file
        self.caller = caller
        self._seen: bytes | None = None
        self._poll: PollHandle | None = None

    async def read(self, offset: int, size: int) -> bytes:
        """A snapshot, taken anew at offset 0."""
        if offset == 0 or self._seen is None:
            self._seen = await content(self.directory, self.file)
        return self._seen[offset : offset + size]

    async def write(self, offset: int, data: bytes) -> None:
        """One write is one request."""
        if self.file.store is None:
            raise ImmutableError(f"{self.directory.path_of(self.file.name)} is read-only")
        await self.file.store(self.directory, data, self.caller)

    def flush(self) -> None:
        """Called at each close(2) of a descriptor, also before the first write."""

    def poll(self, handle: PollHandle | None) -> int:
        """Readable when the content differs from what was read last."""
        if handle is not None:
            self._poll = handle
        return select.POLLOUT | (select.POLLIN | select.POLLPRI if self._is_news() else 0)

    def _is_news(self) -> bool:
        if self.file.show is None:
            return True
        shown = self.file.show(self.directory).encode("utf-8", "surrogateescape")
        return self._seen is None or shown != self._seen

    def wake(self) -> None:
        """Let whoever polls look again, if there is news."""
        if self._poll is not None and self._is_news():
            handle, self._poll = self._poll, None
            handle.notify()


class DocumentHandle(Handle):
    """Collects a document and commits it with the write that completes it."""

    def __init__(self, directory: Directory, file: File[Directory], caller: Caller) -> None:
        super().__init__(directory, file, caller)
        self._feed = DocumentFeed()
        self._next: int | None = None
        #: What is wrong with what was written, and what a flush said while it was unfinished.
        self._fault: FspoolError | None = None
        self._unfinished: FspoolError | None = None

    async def write(self, offset: int, data: bytes) -> None:
        """A write at 0 begins anew; after a fault all others are told the same again.

        Some programs try what failed once more, or go on with the rest.
        """
        if offset == 0:
            self._feed, self._fault, self._next = DocumentFeed(), None, None
        if self._fault is not None:
            raise self._fault
        try:
            await self._take(offset, data)
        except FspoolError as error:
            self._fault = error
            raise

    async def _take(self, offset: int, data: bytes) -> None:
        if self._next is not None and offset != self._next:
            raise InvalidError(f"{self.file.name} is written from its beginning to its end, without gaps")
        self._next = offset + len(data)
        if not self._feed.feed(data):
            return
        document, self._feed = self._feed.data(), DocumentFeed()
        await super().write(offset, document)
        self.directory.forgive(self._unfinished)

    def flush(self) -> None:
        """An unfinished document is an error to tell, and kept: a child's close flushes too."""
        if self._fault is not None:
            raise self._fault
        if self._feed.started:
            self._unfinished = self._feed.unfinished()
            raise self._unfinished


class ProgressHandle(Handle):
    """Follows a job: one line at once, then one a second, then how it ended."""

    def __init__(self, directory: Directory, file: File[Directory], caller: Caller) -> None:
        super().__init__(directory, file, caller)
        self._text = bytearray()
        self._job: Job | None = None
        self._ended = False

    async def read(self, offset: int, size: int) -> bytes:
        if offset == 0 and self._ended:
            self._text.clear()
            self._job, self._ended = None, False
        if offset >= len(self._text) and not self._ended:
            await self._next_line()
        return bytes(self._text[offset : offset + size])

    async def _next_line(self) -> None:
        if self._job is None:
            self._job = self._pick()
        elif self._job.running:
            with trio.move_on_after(LINE_INTERVAL):
                await self._job.finished.wait()
        self._ended = self._job is None or not self._job.running
        line = self._job.line() if self._job is not None else "none"
        self._text += line.encode("utf-8", "surrogateescape") + b"\n"

    def _pick(self) -> Job | None:
        """The job that runs, or the one that ended last."""
        assert self.file.jobs is not None
        jobs = [job for job in self.file.jobs(self.directory) if job is not None]
        return next((job for job in jobs if job.running), jobs[0] if jobs else None)


class EventsHandle(Handle):
    """Reads the event log; a reader from the beginning begins with the oldest event still kept.

    Offsets are those of the whole log since the daemon started, so that st_size and seeking from
    the end are right; for a reader from offset 0 they count from the oldest kept event.
    """

    def __init__(self, directory: Directory, file: File[Directory], caller: Caller, events: EventLog) -> None:
        super().__init__(directory, file, caller)
        self._events = events
        self._shift = 0
        self._position = 0

    async def read(self, offset: int, size: int) -> bytes:
        if offset == 0:
            self._shift = self._events.start
        data = self._events.read(offset + self._shift, size)
        self._position = offset + self._shift + len(data)
        return data

    def _is_news(self) -> bool:
        return self._position < self._events.end


class ScratchHandle:
    """An open temporary file of an editor."""

    def __init__(self, file: ScratchFile) -> None:
        self.file = file
        file.users += 1

    async def read(self, offset: int, size: int) -> bytes:
        return bytes(self.file.data[offset : offset + size])

    async def write(self, offset: int, data: bytes) -> None:
        self.file.write(offset, data)

    def flush(self) -> None: ...

    def close(self) -> None:
        self.file.users -= 1
        self.file.used = trio.current_time()


async def content(directory: Directory, file: File[Directory]) -> bytes:
    """What a file shows now."""
    shown: str | bytes = ""
    if file.show is not None:
        shown = file.show(directory)
    elif file.ask is not None:
        shown = await file.ask(directory)
    return shown.encode("utf-8", "surrogateescape") if isinstance(shown, str) else shown


def open_handle(directory: Directory, file: File[Directory], caller: Caller, events: EventLog) -> Handle:
    """The handle for a file's style."""
    kinds: dict[Style, Callable[[], Handle]] = {
        Style.VALUE: lambda: Handle(directory, file, caller),
        Style.DOCUMENT: lambda: DocumentHandle(directory, file, caller),
        Style.PROGRESS: lambda: ProgressHandle(directory, file, caller),
        Style.EVENTS: lambda: EventsHandle(directory, file, caller, events),
    }
    return kinds[file.style]()
