"""What the host remembers of pools, looked at as the daemon's start reads it."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from uuid import UUID

from fspoolfs.backends.registry import Registry
from fspoolfs.errors import FspoolError, StorageError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.service.checking.findings import BY_START_OF_DAEMON, Repair, Report, hearing
from fspoolfs.service.store import Store

_SUBJECT = "state directory"
_PRIVATE = 0o700
_WRITABLE_BY_OTHERS = 0o022


def check_state(
    state: Path, store: Store, registry: Registry, *, live: bool
) -> tuple[Report, list[PoolDefinition]]:
    """What is wrong with the state directory, and the definitions in it that can be read.

    While the pools are `live`, what a daemon may just be doing is left out. Raises `OSError`.
    """
    report = Report()
    _check_private(state, store, report)
    if missing := [path for path in store.directories() if not path.is_dir()]:
        report.notes.append(f"{missing[0]} is missing: no daemon has used {state} yet")
        return report, []
    with hearing() as sentences:
        definitions, unreadable = store.read()
    for sentence in sentences:
        report.add(_SUBJECT, sentence, "move it away")
    for name, error in unreadable.items():
        report.add(f"pool {name}", error)
    known = {definition.name for definition in definitions} | unreadable.keys()
    if not live:
        for path in store.interrupted():
            report.add(
                _SUBJECT,
                f"{path} is left of a write that was interrupted",
                BY_START_OF_DAEMON,
                _removal(path),
            )
        for path in store.ownerless(known):
            report.add(
                _SUBJECT, f"{path} is of a pool that is not defined", BY_START_OF_DAEMON, _removal(path)
            )
        for name in store.deletions():
            report.add(
                f"pool {name}", "its storage was being deleted when the daemon ended", BY_START_OF_DAEMON
            )
    for definition in definitions:
        _check_definition(definition, store, registry, report)
    _check_shared(definitions, registry, report)
    return report, definitions


def _check_private(state: Path, store: Store, report: Report) -> None:
    for path in (state, *store.directories()):
        try:
            info = path.lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(info.st_mode):
            report.add(_SUBJECT, f"{path} should be a directory", "move it away")
            continue
        if info.st_uid != os.geteuid():
            report.add(
                _SUBJECT,
                f"{path} belongs to user {info.st_uid}, who could change what the daemon does",
                f"chown {os.geteuid()} {path}",
                Repair(f"give {path} to user {os.geteuid()}", partial(os.chown, path, os.geteuid(), -1)),
            )
        mode, loose = stat.S_IMODE(info.st_mode), _WRITABLE_BY_OTHERS if path == state else 0o077
        if mode & loose:
            report.add(
                _SUBJECT,
                f"{path} has mode {mode:04o}, which lets others in",
                f"chmod {mode & ~loose:04o} {path}",
                Repair(f"give {path} mode {mode & ~loose:04o}", partial(path.chmod, mode & ~loose)),
            )


def _removal(path: Path) -> Repair:
    return Repair(f"remove {path}", path.unlink)


def _check_definition(definition: PoolDefinition, store: Store, registry: Registry, report: Report) -> None:
    subject = f"pool {definition.name}"
    try:
        store.load_pending(definition.name)
    except FspoolError as error:
        report.add(subject, f"its pending definition cannot be read: {error}", "define it again")
    try:
        registry.source_for(definition).check(definition)
    except FspoolError as error:
        report.add(subject, error, "change its definition")
    except OSError as error:
        report.add(subject, StorageError.from_os("look at its source", error))


def _check_shared(definitions: Sequence[PoolDefinition], registry: Registry, report: Report) -> None:
    """Two pools of one uuid, or on one storage, which a definition refuses but a copied file brings about."""
    uuids: dict[UUID | None, str] = {}
    sources: dict[str, str] = {}
    for definition in definitions:
        subject = f"pool {definition.name}"
        first = uuids.setdefault(definition.uuid, definition.name)
        if first != definition.name:
            report.add(subject, f"it has the uuid of pool {first}", "undefine one of them")
        try:
            source = registry.source_for(definition).identity(definition)
        except (OSError, FspoolError):
            continue  # told above
        first = sources.setdefault(source, definition.name)
        if first != definition.name:
            report.add(subject, f"it lies on the same storage as pool {first}", "undefine one of them")
