"""The umask of one thread."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

from fspoolfs.system import umask


def mode_of(path: Path) -> int:
    path.mkdir()
    return stat.S_IMODE(path.stat().st_mode)


def test_closed_concerns_this_thread_alone_and_only_while_it_lasts(tmp_path: Path) -> None:
    modes = []

    def work() -> None:
        for number in range(2):
            with umask.closed():
                modes.append(mode_of(tmp_path / f"closed-{number}"))
                inside.set()
                done.wait()
            modes.append(mode_of(tmp_path / f"open-{number}"))

    inside, done = threading.Event(), threading.Event()
    before = os.umask(0o002)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        inside.wait()
        assert mode_of(tmp_path / "other") == 0o775
        done.set()
        thread.join()
    finally:
        os.umask(before)
    assert modes == [0o700, 0o775] * 2
