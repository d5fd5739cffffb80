"""What must hold after every crash and the start that follows it, whatever was going on.

Looks at the control tree, the pools' real directories and the state directory, and returns a sentence
for everything that is wrong. What an operation makes of a pool is compared elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from crashing.seen import OWN
from crashing.volumes import Volumes
from support.logs import complaints
from support.wait import eventually

#: Seconds for the daemon to start its pools and to finish what was interrupted, and to remove what was
#: purged, on a slow machine.
_PATIENCE = 30.0
_WORKING = frozenset(("building", "starting", "stopping", "deleting"))
_OWN_FILES = frozenset(("pool.xml", "journal", "index.json"))
_OWN_DIRECTORIES = frozenset(("items", "snapshots", "trash", "staging", "purge"))
_STATE = frozenset(("lock", "pools", "pending", "autostart", "active", "started", "deleting"))


def settle(mount: Path) -> None:
    """Return when no pool of a daemon that was just started is on its way to another state."""

    def settled() -> bool:
        return not any(_word(pool / "status") in _WORKING for pool in (mount / "pools").iterdir())

    eventually(settled, what="every pool has come to a state to stay in", timeout=_PATIENCE)


def violations(
    mount: Path, state: Path, strangers: frozenset[str], log: str, volumes: Volumes | None = None
) -> list[str]:
    """Everything that is wrong; `strangers` are what pools' roots may hold besides items.

    With `volumes` all pools are on some.
    """
    pools = sorted((mount / "pools").iterdir())
    return [
        *(sentence for pool in pools if _word(pool / "status") == "failed" for sentence in _failed(pool)),
        *(
            f"pool {pool.name}: {sentence}"
            for pool in pools
            if _word(pool / "status") == "active"
            for sentence in _root(pool, strangers)
        ),
        *_state(state, pools),
        *(volumes.violations({pool.name: _mounted(pool) for pool in pools}) if volumes is not None else ()),
        *complaints(log, []),
    ]


def _mounted(pool: Path) -> Path | None:
    return Path(os.readlink(pool / "root")) if _word(pool / "status") == "active" else None


def _failed(pool: Path) -> Iterator[str]:
    yield f"pool {pool.name} is failed: {(pool / 'last_error').read_text().strip()}"


def _root(pool: Path, strangers: frozenset[str]) -> Iterator[str]:
    """Every item has its storage and its definition, and there is no other."""
    root = Path(os.readlink(pool / "root"))
    items = sorted((pool / "items").iterdir())
    places = {Path(os.readlink(item / "data")).relative_to(root) for item in items}
    for name in sorted(set(os.listdir(root)) - {OWN} - strangers - {place.parts[0] for place in places}):
        yield f"{name} in its root belongs to no item"
    for item in items:
        if _word(item / "status") != "ready":
            yield f"item {item.name} is {_word(item / 'status')}"
    own = root / OWN
    yield from _differences(own, _OWN_FILES | _OWN_DIRECTORIES, optional=frozenset(("index.json",)))
    yield from _differences(own / "items", frozenset(f"{item.name}.xml" for item in items))
    for item in items:
        stored = own / "items" / f"{item.name}.xml"
        if stored.exists():
            yield from _definition(stored, item / "config.xml")
    trashed = {(entry / "uuid").read_text().strip() for entry in (pool / "trash").iterdir()}
    yield from _trash(own / "trash", trashed)
    yield from _differences(own / "staging", frozenset())
    yield from _snapshots(own / "snapshots", items, trashed)
    try:
        eventually(lambda: not os.listdir(own / "purge"), what="what was purged is gone", timeout=_PATIENCE)
    except AssertionError as error:
        yield str(error)


def _snapshots(directory: Path, items: list[Path], trashed: set[str]) -> Iterator[str]:
    """Every snapshot that is shown is there, and each that is there belongs to an item."""
    shown = {(item / "uuid").read_text().strip(): item / "snapshots" for item in items}
    for owner in sorted(directory.iterdir()):
        if owner.name not in shown and owner.name not in trashed:
            yield f"{owner} belongs to nothing"
    for uuid, snapshots in shown.items():
        names = sorted(os.listdir(snapshots))
        there = sorted(os.listdir(directory / uuid)) if (directory / uuid).exists() else []
        if names != sorted(entry.partition(".")[2] for entry in there):
            yield f"{directory / uuid} holds {there}, and {snapshots} shows {names}"


def _trash(directory: Path, shown: set[str]) -> Iterator[str]:
    """What is in the trash has its data there and one record, whose name begins with the uuid."""
    files = os.listdir(directory)
    yield from _differences(directory, frozenset(shown) | {file for file in files if file.endswith(".xml")})
    recorded = sorted(file.partition(".")[0] for file in files if file.endswith(".xml"))
    if recorded != sorted(shown):
        yield f"{directory} has records of {recorded}, and {sorted(shown)} are in the trash"


def _definition(stored: Path, shown: Path) -> Iterator[str]:
    """The definition on the storage says what the control tree says, but for the pool that it is in."""
    try:
        elements = [ElementTree.fromstring(path.read_bytes()) for path in (stored, shown)]
    except ElementTree.ParseError as error:
        yield f"the definition {stored} cannot be read: {error}"
        return
    for element in elements:
        source = element.find("source")
        if source is not None:
            source.attrib.pop("fspool", None)
            if not source.attrib:
                element.remove(source)
    texts = [ElementTree.canonicalize(ElementTree.tostring(element), strip_text=True) for element in elements]
    if texts[0] != texts[1]:
        yield f"the definition {stored} says {texts[0]}, the control tree {texts[1]}"


def _state(state: Path, pools: list[Path]) -> Iterator[str]:
    """The state directory holds what the control tree shows, and nothing that was left half-way."""
    yield from _differences(state, _STATE | {"snapshots"}, optional=frozenset({"snapshots"}))
    stored = {
        "pools": {f"{pool.name}.xml" for pool in pools},
        "pending": {f"{pool.name}.xml" for pool in pools if (pool / "pending.xml").exists()},
        "autostart": {pool.name for pool in pools if _word(pool / "autostart") == "1"},
        "active": {pool.name for pool in pools if _word(pool / "status") == "active"},
        "deleting": set[str](),
    }
    boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    # A pool that was active when the host went down is not any more, and its marker means nothing.
    outdated = {pool.name for pool in pools if _marker(state, pool) not in (None, boot)}
    for name, expected in stored.items():
        allowed = expected | outdated if name == "active" else expected
        yield from _differences(state / name, frozenset(allowed), optional=frozenset(outdated))
    # Where a pool has been active is remembered while it is not, too.
    known = frozenset(pool.name for pool in pools)
    yield from _differences(state / "started", known, optional=known - stored["active"])
    for pool in pools:
        for directory, file in (("pools", "config.xml"), ("pending", "pending.xml")):
            path, shown = state / directory / f"{pool.name}.xml", pool / file
            if path.exists() and shown.exists() and path.read_bytes() != shown.read_bytes():
                yield f"{path} is not what {file} of pool {pool.name} shows"


def _marker(state: Path, pool: Path) -> bytes | None:
    try:
        return (state / "active" / pool.name).read_bytes()
    except FileNotFoundError:
        return None


def _differences(
    directory: Path, expected: frozenset[str], *, optional: frozenset[str] = frozenset()
) -> Iterator[str]:
    present = set(os.listdir(directory))
    for name in sorted(present - expected):
        yield f"{directory / name} belongs to nothing"
    for name in sorted(expected - optional - present):
        yield f"{directory / name} is missing"


def _word(path: Path) -> str:
    return path.read_text().split()[0]
