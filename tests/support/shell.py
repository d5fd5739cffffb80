"""Running programs from tests: bounded in time, output as text, failures with all that was said.

Never waits for a process that cannot die: a client inside a FUSE request survives even SIGKILL until
it is answered, and a test that waited for it would hang with it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

#: Seconds that a program of a test may take; far above what any needs on a slow machine.
TIME_LIMIT = 60.0
#: Seconds that a killed program is waited for; one that is still there is stuck in the kernel.
KILL_LIMIT = 1.0

Shell = Literal["bash", "dash"]


class User(NamedTuple):
    """Whom a program runs as; it gets no other groups."""

    uid: int
    gid: int


class CommandError(AssertionError):
    """A program failed, or did not end in time, and the test did not expect it."""


def as_user(uid: int, gid: int | None = None) -> User:
    """The user `uid` with the group `gid`, or with the group of the same number."""
    return User(uid, uid if gid is None else gid)


def run(
    *argv: str | Path,
    input: str | None = None,
    user: User | None = None,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = TIME_LIMIT,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end.

    `env` is added to this process's own environment, `timeout` is in seconds. Without `input` the
    program reads an empty file. Bytes that are not UTF-8 become surrogates. Raises `CommandError` on
    an exit status other than 0 unless `check` is false, and always when `timeout` has passed.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="surrogateescape",
        env={**os.environ, **(env or {})},
        cwd=cwd,
        user=None if user is None else user.uid,
        group=None if user is None else user.gid,
        extra_groups=None if user is None else [],
    )
    try:
        stdout, stderr = process.communicate(input, timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=KILL_LIMIT)
        raise CommandError(f"{_shown(argv)} did not end within {timeout:g} s") from None
    if check and process.returncode != 0:
        raise CommandError(f"{_shown(argv)} exited with {process.returncode}\n{stdout}{stderr}".rstrip())
    return subprocess.CompletedProcess(argv, process.returncode, stdout, stderr)


def sh(
    script: str,
    *arguments: str | Path,
    shell: Shell = "bash",
    input: str | None = None,
    user: User | None = None,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = TIME_LIMIT,
) -> subprocess.CompletedProcess[str]:
    """Run a line of shell as a person types it; `arguments` are its $1, $2, ... Else like `run`."""
    return run(
        shell, "-c", script, shell, *arguments,
        input=input, user=user, check=check, env=env, cwd=cwd, timeout=timeout,
    )  # fmt: skip


def _shown(argv: tuple[str | Path, ...]) -> str:
    return " ".join(map(str, argv))
