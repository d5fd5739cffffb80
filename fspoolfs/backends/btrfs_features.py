"""What a pool on btrfs tells of itself: which of its features can be used, and what to know or do.

Sentences for people, made of the state of the quotas; nothing here looks at a file system.
"""

from __future__ import annotations

import shlex

from fspoolfs.backends.filesystem import FEATURES
from fspoolfs.model.infos import Feature
from fspoolfs.system.qgroups import Mode, Status

_COUNTED = {
    Mode.FULL: "qgroups count all that an item refers to, shared or not; subvolumes that its users make "
    "in it are counted, but the kernel does not limit them with it",
    Mode.SIMPLE: "simple quotas count data where it was written: what snapshots and clones share stays the "
    "item's that wrote it",
}


def features(status: Status, root: str, no_reflink: str) -> tuple[Feature, ...]:
    """One for each of `FEATURES`; `no_reflink` is why blocks cannot be shared, if they cannot."""
    off = why_off(root) if status.mode is Mode.OFF else ""
    reasons = {
        "quota": off,
        "files": "btrfs does not limit the number of files of a subvolume",
        "usage": off,
        "resize": off,
        "reflink": no_reflink,
    }
    notes = {
        "quota": _state_of(status, root),
        "usage": _state_of(status, root),
        "snapshot": "at once; subvolumes in the item come as empty directories",
        "clone": "at once, sharing blocks; subvolumes in the item come as empty directories",
    }
    return tuple(
        Feature(name=name, reason=reasons[name])
        if reasons.get(name)
        else Feature(name=name, note=notes.get(name, ""))
        for name in FEATURES
    )


def why_off(root: str) -> str:
    """Why nothing is limited or counted, and what to do."""
    how = f"btrfs quota enable --simple {shlex.quote(root)}"
    return f"the quotas of this btrfs are off: `{how}` turns them on"


def _state_of(status: Status, root: str) -> str:
    rescan = f"btrfs quota rescan -w {shlex.quote(root)}"
    if status.rescanning:
        return f"a rescan is counting: numbers are too low until it is done; `{rescan}` waits for it"
    if status.inconsistent:
        return f"the counters are wrong, and limits with them; `{rescan}` counts anew"
    return _COUNTED.get(status.mode, "")
