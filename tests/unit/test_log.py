"""The log: what a record looks like, whatever it is about."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from fspoolfs import log

FORGED = "a\n2026-01-01 00:00:00,000 INFO fspoolfs.requests: rmdir /pools/tank uid=0"


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A log file that everything is written to; afterwards logging is what it was."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    for handler in before:
        root.removeHandler(handler)
    log.configure("info", tmp_path / "log")
    yield tmp_path / "log"
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    for handler in before:
        root.addHandler(handler)
    root.setLevel(level)


@pytest.mark.parametrize("name", [FORGED, "a\rb", "a\x85b", "a\u2028b", "a\x1b[2Jb", "a\udcffb"])
def test_a_record_is_one_line_whatever_it_names(file: Path, name: str) -> None:
    logging.getLogger("fspoolfs.requests").warning("mkdir %s uid=1001: refused", name)
    [line] = file.read_text().splitlines()
    assert line.isprintable()
    assert line.endswith("uid=1001: refused")
    assert name not in line


def test_a_traceback_keeps_its_lines(file: Path) -> None:
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError:
        logging.getLogger("fspoolfs").exception("not\nforeseen")
    first, second, *_, last = file.read_text().splitlines()
    assert first.endswith("not\\nforeseen")
    assert second.startswith("Traceback")
    assert last == "ZeroDivisionError: by zero"
