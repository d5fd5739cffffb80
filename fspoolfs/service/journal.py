"""The write-ahead journal of one pool: records that are durable before storage is touched.

The file has two segments of equal size and is written in place, so that a synced record costs one
write and no metadata. Records are numbered; each carries the highest number that is *stable*, that
is, whose effects are durable without the journal. A segment is written anew only when all records
in it are stable. After a crash the records above the last stable number are replayed.

A record is one line, `fspool1 NUMBER STABLE LENGTH CRC32`, the payload of LENGTH bytes, a newline.
The sum covers the line's numbers and the payload, so a torn record is recognised. The journal
neither knows what payloads mean nor when they have been applied; see `fspoolfs.service.committer`.
Not thread-safe: one thread at a time uses it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from fspoolfs.backends import layout
from fspoolfs.backends.root import LogFile, RootDirectory, SharedDirectory
from fspoolfs.errors import TooLargeError

#: Bytes of one segment: holds any definition (1 MiB at most) and about 2,000 usual records.
SEGMENT = 2 << 20
_MAGIC = b"fspool1"
_MAX_HEADER = 96
#: Bytes of a segment that are read at first, and how many times as many after that: most hold few
#: records when a pool is started.
_FIRST, _MORE = 4 << 10, 16


@dataclass(frozen=True, slots=True)
class Record:
    number: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class _Frame:
    number: int
    stable: int
    payload: bytes
    end: int


def _frame(number: int, stable: int, payload: bytes) -> bytes:
    numbers = b"%d %d %d" % (number, stable, len(payload))
    checksum = zlib.crc32(payload, zlib.crc32(numbers))
    return b"%b %b %08x\n%b\n" % (_MAGIC, numbers, checksum, payload)


def _frame_at(data: bytes, start: int) -> _Frame | None:
    """The record at `start`, or `None` where there is none or it is torn."""
    end = data.find(b"\n", start, start + _MAX_HEADER)
    fields = data[start:end].split(b" ") if end > 0 else []
    if len(fields) != 5 or fields[0] != _MAGIC:
        return None
    try:
        number, stable, length = (int(field) for field in fields[1:4])
        checksum = int(fields[4], 16)
    except ValueError:
        return None
    payload = data[end + 1 : end + 1 + length]
    if len(payload) != length or zlib.crc32(payload, zlib.crc32(b" ".join(fields[1:4]))) != checksum:
        return None
    return _Frame(number, stable, payload, end + 1 + length + 1)


def _is_mark(frame: _Frame) -> bool:
    return not frame.payload and frame.stable == frame.number - 1


def _frames(segment: bytes) -> list[_Frame]:
    """The unbroken run of records from a segment's start; what an earlier use left is not in it."""
    frames: list[_Frame] = []
    position = 0
    while (frame := _frame_at(segment, position)) is not None:
        if frames and frame.number != frames[-1].number + 1:
            break
        frames.append(frame)
        position = frame.end
    return frames


def _frames_in(log: LogFile, start: int, size: int) -> list[_Frame]:
    """The same of a segment in its file, of which no more is read than has to be."""
    length = min(_FIRST, size)
    data = log.read(start, length)
    frames = _frames(data)
    while length < size and _may_go_on(data, frames[-1].end if frames else 0):
        length = min(length * _MORE, size)
        data = log.read(start, length)
        frames = _frames(data)
    return frames


def _may_go_on(data: bytes, position: int) -> bool:
    """Whether there may be a record at `position` that ends behind `data`."""
    line, end, _ = data[position : position + _MAX_HEADER].partition(b"\n")
    fields = line.split(b" ")
    if not end:
        return position + _MAX_HEADER > len(data)
    return (
        len(fields) == 5
        and fields[0] == _MAGIC
        and fields[3].isdigit()
        and position + len(line) + int(fields[3]) + 2 > len(data)
    )


class Journal:
    """Appends and syncs records; `pending` holds what a crash left to be replayed at opening."""

    def __init__(self, log: LogFile, *, segment: int = SEGMENT) -> None:
        self._log = log
        self._size = segment
        found = sorted(
            ((_frames_in(log, place * segment, segment), place) for place in (0, 1)),
            key=lambda run: run[0][-1].number if run[0] else 0,
        )
        frames = [frame for run, _ in found for frame in run]
        self._stable = max((frame.stable for frame in frames), default=0)
        self._last = max((frame.number for frame in frames), default=0)
        #: The number of the newest record that says of all before it that they are stable.
        self._marked = max((frame.number for frame in frames if _is_mark(frame)), default=0)
        self.pending: Sequence[Record] = tuple(
            Record(frame.number, frame.payload) for frame in frames if frame.number > self._stable
        )
        newest, place = found[1]
        self._behind = (place, newest[-1].end) if newest else (0, 0)
        # Go on in the segment that does not hold the newest record: nothing unread is overwritten.
        self._place = 1 - found[1][1] if found[1][0] else 0
        self._position = 0
        #: The highest number in each segment, for knowing when it may be written anew.
        self._highest = [0, 0]
        for run, place in found:
            self._highest[place] = run[-1].number if run else 0

    @classmethod
    def open(cls, root: RootDirectory, *, segment: int = SEGMENT) -> Journal:
        """Open the journal of the pool at `root`, made when it is missing."""
        return cls(root.open_log(layout.JOURNAL, size=2 * segment), segment=segment)

    @classmethod
    def join(cls, root: SharedDirectory, *, segment: int = SEGMENT) -> Journal:
        """Open a journal to which others write as well, in turns; go on behind what they wrote."""
        journal = cls(root.reopen_log(layout.JOURNAL, size=2 * segment), segment=segment)
        journal._go_on_behind_the_last()
        return journal

    def rejoin(self, root: SharedDirectory) -> Sequence[Record] | None:
        """Open it anew: what others have appended since it was closed, in order.

        `None` when that is more than is kept; `pending` then has what is to be replayed. Until the end
        of a turn records may come that are not `stable` yet.
        """
        log = root.reopen_log(layout.JOURNAL, size=2 * self._size, known=True)
        try:
            self._log.close()
            found = self._appended(log)
        except BaseException:
            log.close()
            raise
        if found is None:
            Journal.__init__(self, log, segment=self._size)
            self._go_on_behind_the_last()
            return None
        self._log = log
        self.pending = tuple(record for record in found if record.number > self._stable)
        return found

    def _appended(self, log: LogFile) -> list[Record] | None:
        found: list[Record] = []
        while True:
            start = self._place * self._size
            frames = _frames_in(log, start + self._position, self._size - self._position)
            if not frames or frames[0].number != self._last + 1:
                other = 1 - self._place
                frames = _frames_in(log, other * self._size, self._size)
                if not frames or frames[0].number != self._last + 1:
                    return None if frames and frames[-1].number > self._last else found
                self._place, self._position = other, 0
            self._position += frames[-1].end
            self._last = self._highest[self._place] = frames[-1].number
            self._stable = max(self._stable, *(frame.stable for frame in frames))
            self._marked = max([self._marked, *(frame.number for frame in frames if _is_mark(frame))])
            found += [Record(frame.number, frame.payload) for frame in frames]

    def _go_on_behind_the_last(self) -> None:
        """Whoever reads along is to find what comes next there; what is torn there is of no use."""
        self._place, self._position = self._behind

    @property
    def last(self) -> int:
        """The number of the newest record."""
        return self._last

    @property
    def stable(self) -> int:
        """The number up to which the effects of all records are durable without them."""
        return self._stable

    @property
    def unstable(self) -> int:
        """How many records are not covered by a sync of the storage yet."""
        return self._last - self._stable

    def room(self, payload: bytes) -> bool:
        """Whether `payload` can be appended now; if not, `stabilise` makes room."""
        if self._position + len(payload) + _MAX_HEADER <= self._size:
            return True
        return self._highest[1 - self._place] <= self._stable

    def append(self, payload: bytes) -> int:
        """Write one record, not durable before `sync`; its number.

        The caller has asked `room`. Raises `TooLargeError` for what no segment can hold.
        """
        data = _frame(self._last + 1, self._stable, payload)
        if len(data) > self._size:
            raise TooLargeError(f"a definition of {len(payload)} bytes is too large to be journalled")
        if self._position + len(data) > self._size:
            self._place, self._position = 1 - self._place, 0
        self._log.write(self._place * self._size + self._position, data)
        self._position += len(data)
        self._last += 1
        self._highest[self._place] = self._last
        if not payload and self._stable == self._last - 1:
            self._marked = self._last
        return self._last

    def sync(self) -> None:
        self._log.sync()

    def stabilise(self, number: int) -> None:
        """Take note that the effects of every record up to `number` are durable by themselves."""
        self._stable = max(self._stable, number)

    def close(self) -> None:
        """Leave a durable mark that all stable records are done, and close."""
        try:
            if self._last != self._marked and self.room(b""):
                self.append(b"")
                self.sync()
        finally:
            self._log.close()

    def abandon(self) -> None:
        """Close without touching what it holds."""
        self._log.close()
