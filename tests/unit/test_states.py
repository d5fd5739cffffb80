"""The table of states: each verb in each state has the one answer that is written down here."""

from __future__ import annotations

import errno
from itertools import product

import pytest

from fspoolfs.errors import BusyError, FspoolError, InactiveError, TimeLimitError
from fspoolfs.model.states import (
    ITEM_TABLE,
    POOL_TABLE,
    ItemState,
    ItemVerb,
    PoolState,
    PoolVerb,
    Refusal,
    enter_item,
    enter_pool,
)

# One row a verb, one column a state. A lower-case word is the state in which the verb works, one in
# capitals the reason of its refusal.
POOL_COLUMNS = ["inactive", "building", "starting", "active", "stopping", "deleting", "failed", "stalled"]
POOL_ANSWERS = {
    "define": "inactive WORKING WORKING active WORKING WORKING failed stalled",
    "build": "building WORKING WORKING NOT_INACTIVE WORKING WORKING building NOT_INACTIVE",
    "start": "starting WORKING WORKING ALREADY WORKING WORKING starting SILENT",
    "stop": "NOT_ACTIVE WORKING WORKING stopping WORKING WORKING stopping stopping",
    "destroy": "NOT_ACTIVE WORKING WORKING stopping WORKING WORKING stopping stopping",
    "delete": "deleting WORKING WORKING NOT_INACTIVE WORKING WORKING deleting NOT_INACTIVE",
    "refresh": "NOT_ACTIVE WORKING WORKING active WORKING WORKING NOT_ACTIVE SILENT",
    "undefine": "inactive WORKING WORKING NOT_INACTIVE WORKING WORKING failed NOT_INACTIVE",
}
ITEM_COLUMNS = ["creating", "ready", "busy", "deleting", "missing", "failed"]
ITEM_ANSWERS = {
    "define": "WORKING busy WORKING WORKING NO_DATA BROKEN",
    "adopt": "WORKING ALREADY WORKING WORKING NO_DATA busy",
    "delete": "WORKING deleting WORKING WORKING deleting deleting",
    "rename": "WORKING busy WORKING WORKING NO_DATA BROKEN",
    "resize": "WORKING busy WORKING WORKING NO_DATA BROKEN",
    "clone": "WORKING ready WORKING WORKING NO_DATA BROKEN",
    "snapshot": "WORKING ready WORKING WORKING NO_DATA BROKEN",
    "rollback": "WORKING busy WORKING WORKING busy BROKEN",
    "measure": "WORKING ready WORKING WORKING NO_DATA BROKEN",
}

POOL_CASES = [
    (PoolVerb(verb), PoolState(state), answer)
    for verb, answers in POOL_ANSWERS.items()
    for state, answer in zip(POOL_COLUMNS, answers.split(), strict=True)
]
ITEM_CASES = [
    (ItemVerb(verb), ItemState(state), answer)
    for verb, answers in ITEM_ANSWERS.items()
    for state, answer in zip(ITEM_COLUMNS, answers.split(), strict=True)
]


def test_the_cases_are_all_there_are() -> None:
    assert {(verb, state) for verb, state, _ in POOL_CASES} == set(product(PoolVerb, PoolState))
    assert {(verb, state) for verb, state, _ in ITEM_CASES} == set(product(ItemVerb, ItemState))


def test_the_tables_answer_every_verb_in_every_state() -> None:
    assert set(POOL_TABLE) == set(PoolVerb)
    assert set(ITEM_TABLE) == set(ItemVerb)
    assert all(set(row) == set(PoolState) for row in POOL_TABLE.values())
    assert all(set(row) == set(ItemState) for row in ITEM_TABLE.values())


def refusal(what: str, state: str, verb: str, answer: str) -> str:
    return f"{what} is {state}: {verb} is refused, {Refusal[answer].value}"


@pytest.mark.parametrize(("verb", "state", "answer"), POOL_CASES)
def test_a_verb_is_taken_by_a_pool_in_the_right_states(verb: PoolVerb, state: PoolState, answer: str) -> None:
    if answer.islower():
        assert enter_pool("tank", state, verb) is PoolState(answer)
        return
    with pytest.raises(FspoolError) as refused:
        enter_pool("tank", state, verb)
    kind, number = {
        "NOT_ACTIVE": (InactiveError, errno.ENOMEDIUM),
        "SILENT": (TimeLimitError, errno.ETIMEDOUT),
    }.get(answer, (BusyError, errno.EBUSY))
    assert type(refused.value) is kind
    assert refused.value.errno == number
    assert refused.value.sentence == refusal("pool tank", state.value, verb.value, answer)


@pytest.mark.parametrize(("verb", "state", "answer"), ITEM_CASES)
def test_a_verb_is_taken_by_an_item_in_the_right_states(
    verb: ItemVerb, state: ItemState, answer: str
) -> None:
    if answer.islower():
        assert enter_item("web", state, verb) is ItemState(answer)
        return
    with pytest.raises(BusyError) as refused:
        enter_item("web", state, verb)
    assert refused.value.errno == errno.EBUSY
    assert refused.value.sentence == refusal("item web", state.value, verb.value, answer)


def test_every_working_state_of_a_pool_is_entered_by_a_verb_from_a_settled_one() -> None:
    settled = {PoolState.INACTIVE, PoolState.ACTIVE, PoolState.STALLED, PoolState.FAILED}
    entered = {POOL_TABLE[verb][state] for verb in PoolVerb for state in settled}
    assert set(PoolState) - settled <= entered


def test_a_failed_or_missing_item_can_always_be_deleted() -> None:
    for state in (ItemState.FAILED, ItemState.MISSING):
        assert enter_item("web", state, ItemVerb.DELETE) is ItemState.DELETING


def test_a_failed_pool_can_be_started_and_forgotten() -> None:
    assert enter_pool("tank", PoolState.FAILED, PoolVerb.START) is PoolState.STARTING
    assert enter_pool("tank", PoolState.FAILED, PoolVerb.UNDEFINE) is PoolState.FAILED
