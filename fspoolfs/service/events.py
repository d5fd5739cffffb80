"""What happened: a bounded record of events that files, metrics and kernel caches follow."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from json.encoder import encode_basestring as _quote

#: How many bytes of events are kept for those who come late.
KEPT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that is true from now on.

    `kind` is `pool-…`, `item-…`, `trash-…` or `job-…`, or `storage-…`, which concerns no `pool`.
    `via_tree` marks what the kernel asked for and so knows already; `number` is the identity of the
    object that vanished, where one did.
    """

    kind: str
    pool: str
    item: str = ""
    details: dict[str, str | int] = field(default_factory=dict)
    via_tree: bool = False
    number: int = 0

    def line(self) -> bytes:
        """The event as one line of JSON."""
        fields = [f'"time": {time.time():.3f}, "event": "{self.kind}"']
        if self.pool:
            fields.append(f'"pool": {_quote(self.pool)}')
        if self.item:
            fields.append(f'"item": {_quote(self.item)}')
        for key, value in self.details.items():
            fields.append(f'"{key}": {_quote(value) if isinstance(value, str) else value}')
        return f"{{{', '.join(fields)}}}\n".encode("utf-8", "surrogateescape")


class EventLog:
    """The recent events as one growing text, addressed by the byte since the daemon started.

    `start` is the first byte still kept and `end` the one after the last; both only grow.
    """

    def __init__(self, *, kept: int = KEPT_BYTES) -> None:
        self._kept = kept
        self._lines: deque[bytes] = deque()
        self._listeners: list[Callable[[Event], None]] = []
        self.start = 0
        self.end = 0

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` in the event loop with each event that comes; it must not block."""
        self._listeners.append(listener)

    def publish(self, event: Event) -> None:
        line = event.line()
        self._lines.append(line)
        self.end += len(line)
        while self.end - self.start > self._kept:
            self.start += len(self._lines.popleft())
        for listener in self._listeners:
            listener(event)

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; what is no longer kept reads as empty lines."""
        if offset >= self.end:
            return b""
        missing = b"\n" * min(size, max(0, self.start - offset))
        pieces, position, wanted = [missing], self.start, size - len(missing)
        begin = offset + len(missing)
        for line in self._lines:
            if wanted <= 0:
                break
            if position + len(line) > begin:
                piece = line[max(0, begin - position) :][:wanted]
                pieces.append(piece)
                wanted -= len(piece)
            position += len(line)
        return b"".join(pieces)
