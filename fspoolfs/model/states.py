"""The states of pools and items, and the one table that says which verb is taken in which.

The table is total: every verb has an answer in every state, and the answer is either the state
that the verb works in or the reason why it is refused. Nothing else in the program decides it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from fspoolfs.errors import BusyError, FspoolError, InactiveError, TimeLimitError


class PoolState(enum.StrEnum):
    INACTIVE = "inactive"
    BUILDING = "building"
    STARTING = "starting"
    ACTIVE = "active"
    STALLED = "stalled"
    STOPPING = "stopping"
    DELETING = "deleting"
    FAILED = "failed"


class ItemState(enum.StrEnum):
    CREATING = "creating"
    READY = "ready"
    BUSY = "busy"
    DELETING = "deleting"
    MISSING = "missing"
    FAILED = "failed"


class PoolVerb(enum.StrEnum):
    DEFINE = "define"
    BUILD = "build"
    START = "start"
    STOP = "stop"
    DESTROY = "destroy"
    DELETE = "delete"
    REFRESH = "refresh"
    UNDEFINE = "undefine"


class ItemVerb(enum.StrEnum):
    DEFINE = "define"
    ADOPT = "adopt"
    DELETE = "delete"
    RENAME = "rename"
    RESIZE = "resize"
    CLONE = "clone"
    SNAPSHOT = "snapshot"
    ROLLBACK = "rollback"
    MEASURE = "measure"


class Refusal(enum.Enum):
    """Why a verb is not taken in a state."""

    WORKING = "another operation is under way; wait for it or cancel it"
    NOT_INACTIVE = "it is not inactive; stop it first"
    NOT_ACTIVE = "it is not active; start it first"
    ALREADY = "it is that already"
    SILENT = "its storage does not answer; it is active again by itself when that does"
    NO_DATA = "its directory is missing; put it back and refresh the pool, or delete the item"
    BROKEN = "it has failed; info says why"


_P = PoolState
_R = Refusal
_WORKING_POOL = (_P.BUILDING, _P.STARTING, _P.STOPPING, _P.DELETING)


def _pool_row(
    *,
    inactive: PoolState | Refusal,
    active: PoolState | Refusal,
    stalled: PoolState | Refusal,
    failed: PoolState | Refusal,
    working: Mapping[PoolState, PoolState | Refusal] | None = None,
) -> dict[PoolState, PoolState | Refusal]:
    row: dict[PoolState, PoolState | Refusal] = dict.fromkeys(_WORKING_POOL, _R.WORKING)
    row.update({_P.INACTIVE: inactive, _P.ACTIVE: active, _P.STALLED: stalled, _P.FAILED: failed})
    row.update(working or {})
    return row


#: (verb, state) → the state while the verb works, or why it is refused. A verb that keeps the
#: state it found names that state.
POOL_TABLE: Mapping[PoolVerb, Mapping[PoolState, PoolState | Refusal]] = {
    PoolVerb.DEFINE: _pool_row(inactive=_P.INACTIVE, active=_P.ACTIVE, stalled=_P.STALLED, failed=_P.FAILED),
    PoolVerb.BUILD: _pool_row(
        inactive=_P.BUILDING, active=_R.NOT_INACTIVE, stalled=_R.NOT_INACTIVE, failed=_P.BUILDING
    ),
    PoolVerb.START: _pool_row(inactive=_P.STARTING, active=_R.ALREADY, stalled=_R.SILENT, failed=_P.STARTING),
    PoolVerb.STOP: _pool_row(
        inactive=_R.NOT_ACTIVE, active=_P.STOPPING, stalled=_P.STOPPING, failed=_P.STOPPING
    ),
    PoolVerb.DESTROY: _pool_row(
        inactive=_R.NOT_ACTIVE, active=_P.STOPPING, stalled=_P.STOPPING, failed=_P.STOPPING
    ),
    PoolVerb.DELETE: _pool_row(
        inactive=_P.DELETING, active=_R.NOT_INACTIVE, stalled=_R.NOT_INACTIVE, failed=_P.DELETING
    ),
    PoolVerb.REFRESH: _pool_row(
        inactive=_R.NOT_ACTIVE, active=_P.ACTIVE, stalled=_R.SILENT, failed=_R.NOT_ACTIVE
    ),
    PoolVerb.UNDEFINE: _pool_row(
        inactive=_P.INACTIVE, active=_R.NOT_INACTIVE, stalled=_R.NOT_INACTIVE, failed=_P.FAILED
    ),
}

_I = ItemState


def _item_row(
    *,
    ready: ItemState | Refusal,
    missing: ItemState | Refusal,
    failed: ItemState | Refusal,
) -> dict[ItemState, ItemState | Refusal]:
    return {
        _I.CREATING: _R.WORKING,
        _I.BUSY: _R.WORKING,
        _I.DELETING: _R.WORKING,
        _I.READY: ready,
        _I.MISSING: missing,
        _I.FAILED: failed,
    }


ITEM_TABLE: Mapping[ItemVerb, Mapping[ItemState, ItemState | Refusal]] = {
    ItemVerb.DEFINE: _item_row(ready=_I.BUSY, missing=_R.NO_DATA, failed=_R.BROKEN),
    # A new definition in place of one that cannot be read; its directory is taken over again.
    ItemVerb.ADOPT: _item_row(ready=_R.ALREADY, missing=_R.NO_DATA, failed=_I.BUSY),
    ItemVerb.DELETE: _item_row(ready=_I.DELETING, missing=_I.DELETING, failed=_I.DELETING),
    ItemVerb.RENAME: _item_row(ready=_I.BUSY, missing=_R.NO_DATA, failed=_R.BROKEN),
    ItemVerb.RESIZE: _item_row(ready=_I.BUSY, missing=_R.NO_DATA, failed=_R.BROKEN),
    ItemVerb.CLONE: _item_row(ready=_I.READY, missing=_R.NO_DATA, failed=_R.BROKEN),
    ItemVerb.SNAPSHOT: _item_row(ready=_I.READY, missing=_R.NO_DATA, failed=_R.BROKEN),
    # What a snapshot holds brings back a directory that is missing.
    ItemVerb.ROLLBACK: _item_row(ready=_I.BUSY, missing=_I.BUSY, failed=_R.BROKEN),
    ItemVerb.MEASURE: _item_row(ready=_I.READY, missing=_R.NO_DATA, failed=_R.BROKEN),
}


def _refuse(what: str, state: str, verb: str, why: Refusal) -> FspoolError:
    sentence = f"{what} is {state}: {verb} is refused, {why.value}"
    if why is Refusal.SILENT:
        return TimeLimitError(sentence)
    return InactiveError(sentence) if why is Refusal.NOT_ACTIVE else BusyError(sentence)


def enter_pool(name: str, state: PoolState, verb: PoolVerb) -> PoolState:
    """The state in which `verb` works on pool `name`.

    Raises `BusyError`, `InactiveError` where the pool would have to be active, or `TimeLimitError` where
    its storage would have to answer.
    """
    answer = POOL_TABLE[verb][state]
    if isinstance(answer, Refusal):
        raise _refuse(f"pool {name}", state, verb, answer)
    return answer


def enter_item(name: str, state: ItemState, verb: ItemVerb) -> ItemState:
    """The state in which `verb` works on item `name`; raises `BusyError`."""
    answer = ITEM_TABLE[verb][state]
    if isinstance(answer, Refusal):
        raise _refuse(f"item {name}", state, verb, answer)
    return answer
