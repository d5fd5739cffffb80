"""Reading a daemon's log: which of its records a test should have announced."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_LEVEL = re.compile(r"\b(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")
_BAD_LEVEL = re.compile(r"\b(ERROR|CRITICAL)\b")
_TRACEBACK = "Traceback (most recent call last)"


def records(log: str) -> Iterator[str]:
    """The records of `log`: a line that has a level, and the lines after it that have none."""
    record: list[str] = []
    for line in log.splitlines():
        if record and _LEVEL.search(line):
            yield "\n".join(record)
            record = []
        record.append(line)
    if record:
        yield "\n".join(record)


def is_alarming(record: str) -> bool:
    """Whether `record` is an error or has a traceback."""
    return bool(_BAD_LEVEL.search(record.partition("\n")[0])) or _TRACEBACK in record


def complaints(log: str, announced: Iterable[str]) -> list[str]:
    """What is wrong with `log`: alarming records that no expression of `announced` is found in, and
    expressions that no record has, since a test that waits for an error must fail without it."""
    patterns = [re.compile(pattern) for pattern in announced]
    all_records = list(records(log))
    return [
        *(
            f"not announced: {record}"
            for record in all_records
            if is_alarming(record) and not any(pattern.search(record) for pattern in patterns)
        ),
        *(
            f"announced, but never logged: {pattern.pattern}"
            for pattern in patterns
            if not any(pattern.search(record) for record in all_records)
        ),
    ]
