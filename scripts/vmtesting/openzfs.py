"""OpenZFS for the guest: built once for its kernel, kept in the user's cache, laid over the guest's root.

It is nowhere in this machine, whose own zfs may be another one.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from vmtesting.errors import MissingError

_BUILD = Path(__file__).with_name("build-openzfs")


def layer(kernel: str) -> Path:
    """The tree that is laid over the guest's root. Raises `MissingError` when it cannot be built."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = cache / "fspoolfs" / "openzfs" / kernel
    if not _versions(place) and subprocess.run((_BUILD, kernel, place), check=False).returncode:
        raise MissingError("OpenZFS could not be built, as is told above")
    # Whoever wants another version removes the one that there is.
    return _versions(place)[-1]


def _versions(place: Path) -> list[Path]:
    return sorted(place.glob("[0-9]*"))
