"""Moments at which a daemon dies, or the disk below it loses power first: when it runs a program."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from fspoolfs.system import command


@dataclass(frozen=True, slots=True)
class Moment:
    """Before, in the midst of, or after the first program with these words, such as "lvchange n"."""

    when: Literal["before", "during", "after"]
    words: str

    def __str__(self) -> str:
        return f"{self.when} {self.words}"

    def is_of(self, program: str, argv: Sequence[str]) -> bool:
        wanted, *words = self.words.split()
        return program == wanted and set(words) <= set(argv)


@contextmanager
def daemons_die(moment: Moment, meanwhile: Callable[[Callable[[], bool]], None]) -> Iterator[None]:
    """Daemons that start in this context die by SIGKILL at `moment`, right after `meanwhile`.

    That can ask whether the program is at work, which goes on, as far as nothing ties it to the daemon.
    """
    start, wait = command._start, command._wait

    def die_if(
        when: str, program: str, argv: Sequence[str], process: subprocess.Popen[bytes] | None = None
    ) -> None:
        if moment.when == when and moment.is_of(program, argv):
            meanwhile(lambda: process is not None and process.poll() is None)
            os.kill(os.getpid(), signal.SIGKILL)

    def dying_start(argv: list[str], program: str, *more: object) -> subprocess.Popen[bytes]:
        die_if("before", program, argv)
        process = start(argv, program, *more)  # type: ignore[arg-type]
        die_if("during", program, argv, process)
        return process

    def dying_wait(process: subprocess.Popen[bytes], program: str, *more: object) -> None:
        wait(process, program, *more)  # type: ignore[arg-type]
        die_if("after", program, process.args)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "_start", dying_start)
        patch.setattr(command, "_wait", dying_wait)
        yield


def is_running(program: str) -> bool:
    """Whether any process runs `program`, whose name has at most 15 bytes."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            name = (entry / "comm").read_text().rstrip("\n")
        except OSError:  # it has ended
            continue
        if name == program:
            return True
    return False
