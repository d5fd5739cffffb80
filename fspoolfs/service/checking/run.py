"""A whole check: the host's state, then each pool whose root is there without anything being attached."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from fspoolfs.backends import place
from fspoolfs.backends.registry import Registry
from fspoolfs.errors import FspoolError, NotFoundError, StorageError
from fspoolfs.model.definitions import PoolDefinition, PoolType
from fspoolfs.service.checking import host, root
from fspoolfs.service.checking.findings import Finding, Report
from fspoolfs.service.store import Store
from fspoolfs.system import mounts
from fspoolfs.system.paths import HostRoot


def check(state: Path, registry: Registry, *, live: bool, patience: float) -> Report:
    """Everything that is wrong; `live` while a daemon runs on `state`.

    A pool whose storage does not answer within `patience` seconds is told of and left. Raises
    `NotFoundError` where there is no state directory, and `StorageError` where it cannot be read.
    """
    store = Store(state)
    try:
        if not state.is_dir():
            raise NotFoundError(f"there is no state directory {state}")
        report, definitions = host.check_state(state, store, registry, live=live)
    except OSError as error:
        raise StorageError.from_os(f"state directory {state}", error) from error
    for definition in definitions:
        report.take(_bounded(definition, partial(_check_pool, definition, store, live=live), patience))
    return report


def _bounded(definition: PoolDefinition, look: Callable[[], Report], patience: float) -> Report:
    """In a thread, which a server that never answers may keep for ever."""
    found: list[Report] = []

    def work() -> None:
        try:
            found.append(look())
        except (OSError, FspoolError) as error:
            report = Report(pools=1)
            told = error if isinstance(error, FspoolError) else StorageError.from_os("read its root", error)
            report.add(f"pool {definition.name}", told)
            found.append(report)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(patience)
    if found:
        return found[0]
    if not thread.is_alive():
        raise AssertionError(f"the check of pool {definition.name} ended by an error not foreseen")
    report = Report(pools=1)
    report.add(
        f"pool {definition.name}",
        f"its storage does not answer within {patience:g} s",
        "check it again when its server does",
    )
    return report


def _check_pool(definition: PoolDefinition, store: Store, *, live: bool) -> Report:
    known = store.was_started(definition.name, definition.target or "")
    target = place.target_of(definition)
    if definition.type is not PoolType.DIR and mounts.mount_at(place.unvisited(target)) is None:
        return Report(
            notes=[f"pool {definition.name} is not mounted: start it to have what it holds checked"], pools=1
        )
    try:
        opened = HostRoot.open(target)
    except FileNotFoundError:
        report = Report(pools=1)
        if known:
            report.add(
                f"pool {definition.name}", f"its root {target} is missing", "put it back, or build it anew"
            )
        else:
            report.notes.append(f"pool {definition.name} is not built yet")
        return report
    # It is closed with the last repair that reaches what is to be repaired through it.
    return root.check_root(opened, definition, known=known, live=live)


def repair(findings: Sequence[Finding]) -> Iterator[tuple[Finding, str]]:
    """Carry out what can be repaired, one after the other; with each, why it failed, or nothing."""
    for finding in findings:
        if finding.repair is not None:
            try:
                finding.repair.act()
            except (OSError, FspoolError) as error:
                yield finding, str(error)
            else:
                yield finding, ""
