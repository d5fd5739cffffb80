"""What a person is told when a verb of a pool has failed: why, and what helps against it."""

from __future__ import annotations

import errno

from fspoolfs.errors import FspoolError, StorageError
from fspoolfs.model.states import PoolVerb
from fspoolfs.service.objects import Pool

#: What helps against an errno that the storage answers to a verb.
_ADVICE = {
    errno.EROFS: "remount the file system that holds {target} for writing",
    errno.EACCES: "give the daemon's user the right to enter {target} and to write there",
    errno.EPERM: "allow the daemon's user to change {target}, which a flag (lsattr) may forbid root too",
    errno.ENOSPC: "make room on the file system that holds {target}",
    errno.EDQUOT: "make room below the quota that {target} is under, or raise it",
    errno.EIO: "look into the kernel's log (dmesg) for the fault of the storage at {target} and mend it",
}


def as_refusal(verb: PoolVerb, pool: Pool, error: BaseException) -> FspoolError:
    """The refusal that `error`, of a verb on a pool, stands for."""
    if isinstance(error, FspoolError):
        return error
    if isinstance(error, OSError):
        refusal = StorageError.from_os(f"{verb} pool {pool.name}", error)
        advice = _ADVICE.get(refusal.errno, "mend what is wrong with {target}").format(target=pool.target)
        return StorageError(f"{refusal}; {advice}, then {verb} the pool again", errno=refusal.errno)
    return FspoolError(f"{verb} of pool {pool.name} failed for a reason not foreseen: {error}")
