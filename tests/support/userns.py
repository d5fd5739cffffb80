"""Containers as small as they come: a program as root of a user and a mount namespace of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support.shell import TIME_LIMIT

#: The ids of the host that are the container's own, 0 to 65535.
FIRST, COUNT = 100_000, 65_536
#: Where a container finds what it is given.
PLACE = Path("/mnt")
#: Binds what is given, as a runtime does, and enters the namespaces.
_ENTER = """
    if test -n "$GIVEN"; then mount --bind "$GIVEN" "$PLACE" || exit; fi
    exec unshare --user --keep-caps --mount -- bash -c "$@"
"""
#: Waits until its ids are mapped, becomes root of its namespace, and then does what it is asked.
_WAIT = 'echo; read go; exec setpriv --reuid 0 --regid 0 --clear-groups -- bash -c "$0" bash "$@"'


def in_container(
    script: str, *arguments: str | Path, given: Path | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a line of shell as root of a new user namespace; it may mount what it likes.

    The directory `given` is bound at `PLACE`. Raises `AssertionError` with what it said when it fails,
    unless `check` is false.
    """
    process = subprocess.Popen(
        ("unshare", "--mount", "--", "bash", "-c", _ENTER, "bash", _WAIT, script, *map(str, arguments)),
        env={**os.environ, "GIVEN": str(given or ""), "PLACE": str(PLACE)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "\n", "no user namespace can be made here"
        for kind in ("uid_map", "gid_map"):
            Path(f"/proc/{process.pid}/{kind}").write_text(f"0 {FIRST} {COUNT}\n")
        stdout, stderr = process.communicate("go\n", TIME_LIMIT)
    except BaseException:
        process.kill()
        process.wait()
        raise
    assert process.returncode == 0 or not check, stdout + stderr
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
