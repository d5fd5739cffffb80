"""What a new definition changes: at once, at the next start, or never."""

from __future__ import annotations

import errno
from dataclasses import fields, replace
from typing import Any
from uuid import UUID

import pytest

from fspoolfs.errors import ImmutableError
from fspoolfs.model import changes
from fspoolfs.model.definitions import (
    Host,
    IdMap,
    IdRange,
    ItemDefinition,
    ItemOrigin,
    Permissions,
    PoolDefaults,
    PoolDefinition,
    PoolSource,
    PoolType,
    Quota,
    SoftLimit,
    TrashPolicy,
)

GiB = 2**30
ONE, OTHER = UUID(int=1), UUID(int=2)
POOL = PoolDefinition(
    name="tank",
    type=PoolType.VOLUME,
    uuid=ONE,
    capacity=10 * GiB,
    source=PoolSource(pool="images", volume="vol1"),
    target="/srv/tank",
    permissions=Permissions(mode=0o755),
    metadata="<metadata/>",
)
ITEM = ItemDefinition(name="web", uuid=ONE, pool="tank", capacity=GiB, origin=ItemOrigin(fs="base"))

LIVE: dict[str, Any] = {
    "permissions": Permissions(mode=0o700, owner=5),
    "defaults": PoolDefaults(capacity=GiB, soft=SoftLimit(percent=80), files=1000),
    "quotas": (Quota(user=1000, size=GiB),),
    "trash": TrashPolicy(retention=0),
    "metadata": "<metadata><a/></metadata>",
    "capacity": 11 * GiB,
}
WAITING: dict[str, Any] = {
    "source": PoolSource(pool="images", volume="vol2"),
    "target": "/srv/other",
    "type": PoolType.NETWORK,
    "capacity": 9 * GiB,
}


def of_pool(**new: Any) -> PoolDefinition:
    return replace(POOL, **new)


def of_item(**new: Any) -> ItemDefinition:
    return replace(ITEM, **new)


def test_every_field_of_a_pool_changes_live_or_waits_or_never_changes() -> None:
    assert {field.name for field in fields(PoolDefinition)} == {*LIVE, *WAITING, "name", "uuid"}


@pytest.mark.parametrize(("field", "value"), LIVE.items())
def test_what_needs_no_restart_holds_at_once(field: str, value: object) -> None:
    new = of_pool(**{field: value})
    assert changes.pool_changes(POOL, new) == changes.PoolChanges(live=new, pending=None, changed=(field,))


@pytest.mark.parametrize(("field", "value"), WAITING.items())
def test_what_needs_a_restart_waits_for_it(field: str, value: object) -> None:
    new = of_pool(**{field: value})
    assert changes.pool_changes(POOL, new) == changes.PoolChanges(live=POOL, pending=new, changed=(field,))


def test_one_definition_may_change_some_at_once_and_some_later() -> None:
    new = of_pool(target="/srv/other", capacity=20 * GiB, trash=TrashPolicy(retention=60), metadata=None)
    planned = changes.pool_changes(POOL, new)
    assert planned.live == replace(new, target="/srv/tank")
    assert planned.pending == new
    assert planned.changed == ("capacity", "target", "trash", "metadata")


def test_the_same_definition_changes_nothing() -> None:
    assert changes.pool_changes(POOL, POOL) == changes.PoolChanges(live=POOL, pending=None, changed=())


def test_a_uuid_and_a_target_that_are_left_out_stay() -> None:
    planned = changes.pool_changes(POOL, of_pool(uuid=None, target=None))
    assert planned == changes.PoolChanges(live=POOL, pending=None, changed=())


def test_what_waits_is_complete() -> None:
    planned = changes.pool_changes(POOL, of_pool(uuid=None, target=None, type=PoolType.DIR))
    assert planned.pending == of_pool(type=PoolType.DIR)


@pytest.mark.parametrize(
    ("old", "new", "grows"),
    [(1, 2, True), (2, 1, False), (None, 5, False), (5, None, False)],
)
def test_a_capacity_changes_live_only_where_it_is_known_to_grow(
    old: int | None, new: int | None, grows: bool
) -> None:
    planned = changes.pool_changes(of_pool(capacity=old), of_pool(capacity=new))
    assert planned.live.capacity == (new if grows else old)
    assert planned.pending == (None if grows else of_pool(capacity=new))
    assert planned.changed == ("capacity",)


def test_a_pool_keeps_its_uuid() -> None:
    with pytest.raises(ImmutableError, match=f"pool tank has the uuid {ONE} for good") as refused:
        changes.pool_changes(POOL, of_pool(uuid=OTHER))
    assert refused.value.errno == errno.EPERM


def test_a_pool_keeps_its_name() -> None:
    with pytest.raises(ImmutableError, match="the document defines pool lake, not tank"):
        changes.pool_changes(POOL, of_pool(name="lake"))


# Items

ITEM_LIVE: dict[str, Any] = {
    "capacity": 2 * GiB,
    "soft": SoftLimit(percent=80),
    "files": 1000,
    "permissions": Permissions(owner=1000),
    "limits": (("pids.max", "5"),),
    "idmap": IdMap(users=(IdRange(0, 1000, 1),), groups=(IdRange(0, 1000, 1),)),
    "metadata": "<metadata/>",
}
ITEM_NEVER: dict[str, Any] = {
    "name": "shop",
    "uuid": OTHER,
    "pool": "lake",
    "path": "/elsewhere",
    "origin": ItemOrigin(fs="base", snapshot="v1"),
}


def test_every_field_of_an_item_changes_or_never_changes() -> None:
    assert {field.name for field in fields(ItemDefinition)} == {*ITEM_LIVE, *ITEM_NEVER}


@pytest.mark.parametrize(("field", "value"), ITEM_LIVE.items())
def test_a_changed_field_of_an_item_is_named(field: str, value: object) -> None:
    assert changes.item_changes(ITEM, of_item(**{field: value})) == (field,)


def test_changed_fields_of_an_item_are_named_in_the_order_of_the_document() -> None:
    assert changes.item_changes(ITEM, of_item(**ITEM_LIVE)) == tuple(ITEM_LIVE)
    assert changes.item_changes(ITEM, ITEM) == ()


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("name", "the document defines item shop, not web; rename it with mv"),
        ("uuid", f"item web has uuid {ONE} for good"),
        ("pool", "item web has pool tank for good"),
        ("path", "item web lies at /web for good, not at /elsewhere"),
        ("origin", "what item web was cloned from is settled"),
    ],
)
def test_what_is_settled_when_an_item_is_created_cannot_change(field: str, words: str) -> None:
    with pytest.raises(ImmutableError, match=words):
        changes.item_changes(ITEM, of_item(**{field: ITEM_NEVER[field]}))


def test_an_item_that_is_no_clone_never_becomes_one() -> None:
    with pytest.raises(ImmutableError, match="cloned from"):
        changes.item_changes(of_item(origin=None), ITEM)


def test_what_an_item_leaves_out_and_cannot_change_stays() -> None:
    bare = of_item(uuid=None, pool=None, origin=None, path=None)
    old = of_item(path="/customers/web")
    assert changes.item_changes(old, bare) == ()
    assert changes.complete_item(bare, old) == old


def test_a_pool_that_was_not_known_may_be_named() -> None:
    assert changes.item_changes(of_item(pool=None, uuid=None), ITEM) == ()


def test_a_path_that_spells_out_where_an_item_lies_anyway_is_no_change() -> None:
    assert changes.item_changes(ITEM, of_item(path="/web")) == ()
    assert changes.complete_item(of_item(path="/web"), ITEM).path is None


def test_an_item_at_a_path_of_its_own_stays_there() -> None:
    old = of_item(path="/customers/web")
    assert changes.item_changes(old, of_item(path="/customers/web", capacity=5)) == ("capacity",)
    with pytest.raises(ImmutableError, match="lies at /customers/web for good, not at /web"):
        changes.item_changes(old, of_item(path="/web"))


def test_hosts_are_compared_in_their_order() -> None:
    first, second = Host(name="a"), Host(name="b")
    old = of_pool(source=PoolSource(hosts=(first, second)))
    new = of_pool(source=PoolSource(hosts=(second, first)))
    assert changes.pool_changes(old, new).changed == ("source",)
