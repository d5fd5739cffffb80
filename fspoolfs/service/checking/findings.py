"""What a check finds, and how what is only said in the log becomes a finding."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from fspoolfs.errors import FspoolError

_PACKAGE = "fspoolfs"

#: Remedies that several findings share.
BY_START_OF_DAEMON = "the next start of the daemon takes care of it"
BY_START_OF_POOL = "the next start of the pool takes care of it"


@dataclass(frozen=True, slots=True)
class Repair:
    """One thing that a repair does: `what`, as in "remove /x"; `act` raises `OSError`. Loses no data."""

    what: str
    act: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as it should be with `subject`; `remedy` says who mends it, and how."""

    subject: str
    sentence: str
    remedy: str = ""
    repair: Repair | None = None


@dataclass(slots=True)
class Report:
    """What was looked at, what was found, and what could not be looked at (`notes`)."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pools: int = 0
    items: int = 0

    def add(
        self, subject: str, error: FspoolError | str, remedy: str = "", repair: Repair | None = None
    ) -> None:
        sentence = error if isinstance(error, str) else error.sentence
        self.findings.append(Finding(subject=subject, sentence=sentence, remedy=remedy, repair=repair))

    def take(self, other: Report) -> None:
        """All of `other`, too."""
        self.findings += other.findings
        self.notes += other.notes
        self.pools += other.pools
        self.items += other.items


class _Hearer(logging.Handler):
    """Keeps the sentences of warnings and errors that one thread logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()
        self.sentences: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.sentences.append(record.getMessage())


@contextmanager
def hearing() -> Iterator[list[str]]:
    """What this thread logs meanwhile: where reading leaves something alone, it says so there."""
    hearer, logger = _Hearer(), logging.getLogger(_PACKAGE)
    logger.addHandler(hearer)
    try:
        yield hearer.sentences
    finally:
        logger.removeHandler(hearer)
