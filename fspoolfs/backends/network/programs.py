"""Programs that mount an export and end, or go on in the background: run with an end, refusals sorted."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence

from fspoolfs.backends.network import exports
from fspoolfs.errors import AccessError, FspoolError, NotFoundError, StorageError, TimeLimitError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.names import one_line
from fspoolfs.progress import Progress
from fspoolfs.system import command

#: The most of its complaints that goes into an error, in characters.
_SAID = 400

#: What kernels have that can mount a type, or would load a module for.
_FILE_SYSTEMS = "/proc/filesystems"


def complaint(
    definition: PoolDefinition,
    words: Sequence[str],
    *,
    patience: float,
    progress: Progress,
    inherited: Collection[int] = (),
    chatter: str = r"\Z",
) -> str | None:
    """Run it; `None` when it has succeeded, else what it says, in one line, without what `chatter` matches.

    Raises `TimeLimitError` after `patience` seconds, when it has been killed.
    """
    try:
        ended = command.run(
            words, timeout=patience, progress=progress, allowed=range(1, 256), inherited=inherited
        )
    except TimeLimitError as error:
        raise exports.unreachable(definition, f"no answer within {patience:g} seconds") from error
    if not ended.status:
        return None
    text = (ended.stderr + b"\n" + ended.stdout).decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return one_line("; ".join(line for line in lines if not re.match(chatter, line))[:_SAID])


def refusal(
    definition: PoolDefinition, said: str, *, missing: str, forbidden: str, unreachable: str, advice: str
) -> FspoolError:
    """The error for a complaint, by the pattern that it matches; `advice` is for who may not come in."""
    what = exports.shown(definition)
    if re.search(missing, said, re.IGNORECASE):
        return NotFoundError(
            f"pool {definition.name}: {what} is not there ({said}); build the pool, or see to it on the "
            "server"
        )
    if re.search(forbidden, said, re.IGNORECASE):
        return AccessError(f"pool {definition.name}: {what} does not let us in ({said}); {advice}")
    if re.search(unreachable, said, re.IGNORECASE):
        return exports.unreachable(definition, said)
    why = said or "the program that mounts it did not say why"
    return StorageError(f"pool {definition.name}: {what} cannot be mounted: {why}")


def why_not_in_kernel(fs_type: str) -> str:
    """Why this kernel cannot mount file systems of a type; empty where it can, or can load what it takes."""
    with open(_FILE_SYSTEMS, encoding="ascii") as known:
        if fs_type in known.read().split():
            return ""
    if command.find("modprobe") is not None:
        found = command.run(
            ["modprobe", "--dry-run", "--quiet", f"fs-{fs_type}"], timeout=5.0, allowed=range(1, 256)
        )
        if not found.status:
            return ""
    return f"the kernel {os.uname().release} has no {fs_type}, and no module for it is installed"
