"""Where log lines go and what they look like. Lines name the pool, the item, the verb and the uid."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from fspoolfs.names import one_line

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _OneLine(logging.Formatter):
    """One record is one line, but for tracebacks.

    Refused names stand in the log as well, and whoever may try to create something chooses them:
    a line break would forge records, and bytes that are not UTF-8 would keep theirs from being
    written.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))


def configure(level: str, file: Path | None) -> None:
    """Log to `file`, which only its owner reads, or to stderr when it is `None`."""
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        os.close(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(_OneLine(_FORMAT))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
