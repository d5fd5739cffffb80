"""Where on the host a pool must not lie: among the files that the daemon itself lives by.

Compares paths, which are absolute and without symbolic links; never looks at storage.
"""

from __future__ import annotations

from fspoolfs.errors import InvalidError
from fspoolfs.system.mounts import is_beneath


def check_apart(name: str, place: str, *, state: str, storage: str) -> None:
    """Raise `InvalidError` for a pool at `place` that would share the state directory with the daemon.

    The storage directory may lie in `state`, as it does by default, and pools in that.
    """
    if is_beneath(state, place) and state != place:
        raise InvalidError(
            f"pool {name}: {place} holds the daemon's state directory {state}, which must be no part of a "
            "pool; name another directory"
        )
    apart = storage != state and is_beneath(storage, state) and is_beneath(place, storage)
    if is_beneath(place, state) and not apart:
        raise InvalidError(
            f"pool {name}: {place} lies in the daemon's state directory {state}, among its own files; name a "
            "directory elsewhere, or give the daemon a storage directory of its own"
        )
