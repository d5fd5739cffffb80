"""Sums of capacities: those that follow each change are those that a new count finds."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from fspoolfs.errors import QuotaError
from fspoolfs.model.definitions import ItemDefinition, Permissions, Quota
from fspoolfs.service.accounts import Accounts, Standing

QUOTAS = (
    Quota(size=40, items=6),
    Quota(user=1, size=25),
    Quota(user=2, items=2),
    Quota(group=1, size=30, items=4),
)
definitions = st.builds(
    ItemDefinition,
    name=st.just("i"),
    uuid=st.builds(UUID, int=st.integers(1, 5)),
    capacity=st.none() | st.integers(1, 20),
    permissions=st.builds(Permissions, owner=st.integers(1, 3), group=st.integers(1, 2)),
)
steps = st.tuples(
    st.sampled_from(["note", "note_trashed", "claim", "keep", "give back", "forget"]), definitions
)


def counted_anew(accounts: Accounts) -> list[Standing]:
    accounts.limit(())
    accounts.limit(QUOTAS)
    return accounts.standings()


@given(st.lists(steps, max_size=30))
def test_sums_follow_what_is_done(done: list[tuple[str, ItemDefinition]]) -> None:
    accounts = Accounts(QUOTAS)
    for what, definition in done:
        assert definition.uuid is not None
        match what:
            case "note":
                accounts.note(definition)
            case "note_trashed":
                accounts.note_trashed(definition)
            case "claim":
                _claim(accounts, definition)
            case "forget":
                accounts.forget(definition.uuid)
            case _:
                accounts.settle(definition.uuid, done=what == "keep")
        assert accounts.standings() == counted_anew(accounts)


def _claim(accounts: Accounts, definition: ItemDefinition) -> None:
    """A claim that is refused has changed nothing, and one that is not makes no sum exceed its quota."""
    before = {one.quota: one for one in accounts.standings()}
    try:
        accounts.claim(definition, "make it")
    except QuotaError:
        assert definition.uuid is not None
        accounts.settle(definition.uuid, done=True)
        return
    for one in accounts.standings():
        old = before[one.quota]
        assert one.quota.size is None or one.size <= max(one.quota.size, old.size)
        assert one.quota.items is None or one.items <= max(one.quota.items, old.items)


@given(st.lists(definitions, max_size=5, unique_by=lambda one: one.uuid), st.lists(definitions, max_size=3))
def test_a_new_beginning_counts_all(items: list[ItemDefinition], trash: list[ItemDefinition]) -> None:
    there = {one.uuid for one in items}
    rest = {one.uuid: one for one in trash if one.uuid not in there}.values()
    accounts, followed = Accounts(QUOTAS), Accounts(QUOTAS)
    accounts.renew(items, rest)
    for one in items:
        followed.note(one)
    for one in rest:
        followed.note_trashed(one)
    assert accounts.standings() == followed.standings()
