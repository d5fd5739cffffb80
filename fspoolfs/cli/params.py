"""What commands take on their command line, with the completion of pools and items.

An item is named POOL/ITEM, or ITEM with --pool POOL, as virsh's volumes are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from fspoolfs.cli import client
from fspoolfs.cli.client import Place, Tree
from fspoolfs.errors import FspoolError, InvalidError

F = TypeVar("F", bound=Callable[..., Any])


def tree() -> Tree:
    """The control tree that the command line chose."""
    found = click.get_current_context().find_object(Path)
    return client.find(found)


def _tree_for_completion(context: click.Context) -> Tree | None:
    """Completion says nothing where something is wrong: a person types on."""
    root = context.find_root()
    chosen = root.obj if isinstance(root.obj, Path) else root.params.get("mount_point")
    try:
        return client.find(chosen)
    except FspoolError:
        return None


class PoolName(click.ParamType[str]):
    """The name of a pool that is there; its UUID is as good."""

    name = "pool"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return _items(_pools(ctx), incomplete)


class ItemName(click.ParamType[str]):
    """POOL/ITEM, or ITEM where --pool says the rest. `inside` is where they are: items or trash."""

    name = "item"

    def __init__(self, inside: str = "items") -> None:
        self._inside = inside

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        found = _tree_for_completion(ctx)
        pool = ctx.params.get("pool")
        if found is None:
            return []
        if pool is not None:
            return _items(_inside(found, pool, self._inside), incomplete)
        if "/" not in incomplete:
            return _items([f"{name}/" for name in _pools(ctx)], incomplete)
        pool = incomplete.partition("/")[0]
        return _items([f"{pool}/{name}" for name in _inside(found, pool, self._inside)], incomplete)


class SnapshotName(click.ParamType[str]):
    """A snapshot of the item that stands before it."""

    name = "snapshot"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        found, item = _tree_for_completion(ctx), ctx.params.get("item")
        if found is None or not isinstance(item, str):
            return []
        try:
            pool, name = split(item, ctx.params.get("pool"))
            return _items(found.item(pool, name).names("snapshots"), incomplete)
        except FspoolError:
            return []


def _pools(context: click.Context) -> list[str]:
    found = _tree_for_completion(context)
    try:
        return found.pools() if found is not None else []
    except FspoolError:
        return []


def _inside(found: Tree, pool: str, directory: str) -> list[str]:
    try:
        return found.pool(pool).names(directory)
    except FspoolError:
        return []


def _items(names: Sequence[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def split(item: str, pool: str | None) -> tuple[str, str]:
    """Pool and item of what was typed. Raises `InvalidError`."""
    before, slash, name = item.partition("/")
    if pool is None:
        if not slash:
            raise InvalidError(f"{item}: write POOL/ITEM, or say --pool")
        return before, name
    if slash:
        raise InvalidError(f"{item}: the pool is named twice, by --pool as well")
    return pool, item


def the_pool(name: str) -> Place:
    """The pool of that name or UUID."""
    found = tree()
    return found.pool(_by_uuid(found, name) or name)


def _by_uuid(found: Tree, text: str) -> str | None:
    """The name of the pool whose UUID `text` is, where no pool has it as its name."""
    if len(text) not in (32, 36) or text in (names := found.pools()):
        return None
    wanted = text.replace("-", "").lower()
    return next((name for name in names if found.pool(name).value("uuid").replace("-", "") == wanted), None)


def the_item(item: str, pool: str | None) -> Place:
    return tree().item(*split(item, pool))


pool_argument = click.argument("pool", type=PoolName())
item_argument = click.argument("item", metavar="[POOL/]ITEM", type=ItemName())
pool_option = click.option("--pool", type=PoolName(), help="The item's pool.", is_eager=True)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
bytes_option = click.option("--bytes", "exact", is_flag=True, help="Print sizes in bytes.")


def an_item(function: F) -> F:
    """The argument and the option that name one item."""
    return item_argument(pool_option(function))
