"""Programs on a pseudo-terminal, as a person at a keyboard runs them."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from support.shell import TIME_LIMIT, User

_CHUNK = 1 << 16


class Terminal:
    """A program with a terminal of its own, which it controls: Ctrl-C that is typed interrupts it."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: User | None = None,
    ) -> None:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (40, 120))
        self.output = ""
        self._pending = b""
        try:
            self.process = subprocess.Popen(
                argv,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env={**os.environ, "TERM": "xterm-256color", **(env or {})},
                cwd=cwd,
                user=None if user is None else user.uid,
                group=None if user is None else user.gid,
                extra_groups=None if user is None else [],
                start_new_session=True,
                # The first terminal that a session's leader opens becomes its own.
                preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
            )
        finally:
            os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(TIME_LIMIT)
        os.close(self._master)

    def type(self, text: str) -> None:
        """What a person types; "\\x03" is Ctrl-C, "\\t" asks for completion."""
        os.write(self._master, text.encode())

    def wait_for(self, text: str, *, timeout: float = TIME_LIMIT) -> str:
        """Read until `text` was shown since the last call; what was shown up to it."""
        seen = self._wait(text, timeout)
        assert seen is not None, f"{text!r} was not shown:\n{self.output}"
        return seen

    def read_on(self, seconds: float) -> str:
        """All that was shown so far; waits up to `seconds` for more."""
        self._wait("\0", seconds)
        return self.output

    def end(self, *, timeout: float = TIME_LIMIT) -> int:
        """Read to the end; the exit status."""
        assert self._wait(None, timeout) is not None, f"it has not ended:\n{self.output}"
        return self.process.wait(timeout)

    def _wait(self, text: str | None, timeout: float) -> str | None:
        deadline = time.monotonic() + timeout
        while True:
            shown = self._pending.decode(errors="replace")
            if text is not None and text in shown:
                before, _, rest = shown.partition(text)
                self._pending = rest.encode()
                return before + text
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            readable, _, _ = select.select([self._master], [], [], left)
            try:
                piece = os.read(self._master, _CHUNK) if readable else b""
            except OSError:
                piece = b""  # the program and all that it started have closed it
            if not piece:
                return shown if text is None and readable else None
            self._pending += piece
            self.output += piece.decode(errors="replace")


def on_terminal(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: User | None = None,
) -> tuple[int, str]:
    """Run a program on a terminal to its end: the exit status, and all that was shown."""
    with Terminal(argv, env=env, cwd=cwd, user=user) as terminal:
        return terminal.end(), terminal.output
