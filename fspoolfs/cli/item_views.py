"""The commands that show items."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from fspoolfs.cli import output
from fspoolfs.cli.client import Place
from fspoolfs.cli.params import PoolName, an_item, bytes_option, json_option, the_item, the_pool, tree
from fspoolfs.cli.style import Command
from fspoolfs.errors import InvalidError, NotFoundError

_DETAILS = ("Owner", "Mode", "Capacity", "Allocation", "Files", "Snapshots", "Path")
_NUMBERS = ("Capacity", "Allocation", "Files", "Snapshots")


def rows_of(pool: Place) -> list[dict[str, Any]]:
    """What a pool tells of its items, by name; the keys are those of its file `listing`."""
    # One read and one document, however many items there are.
    rows: list[dict[str, Any]] = json.loads(f"[{','.join(pool.read('listing').split(chr(10))[:-1])}]")
    return rows


@click.command("fs-list", cls=Command)
@click.argument("pool", type=PoolName(), required=False)
@click.option("--details", is_flag=True, help="Owner, mode, sizes and place, too.")
@click.option("--deleted", is_flag=True, help="What is in the pool's trash.")
@click.option("--name", "only_names", is_flag=True, help="Print the names alone.")
@bytes_option
@json_option
def show(
    *, pool: str | None, details: bool, deleted: bool, only_names: bool, exact: bool, as_json: bool
) -> None:
    """List the items of POOL, which need not be named where there is only one."""
    place = the_pool(pool or _only_pool())
    if deleted:
        _show_deleted(place, only_names=only_names, as_json=as_json)
    elif only_names and not as_json:
        output.show_names(place.names("items"))
    elif as_json:
        output.show_json(rows_of(place))
    elif details:
        rows = [(row["name"], row["state"], *_details(row, exact)) for row in rows_of(place)]
        output.show_table(("Name", "State", *_DETAILS), rows, right=_NUMBERS)
    else:
        output.show_table(("Name", "State", "Path"), [_brief(row) for row in rows_of(place)])


def _only_pool() -> str:
    pools = tree().pools()
    if not pools:
        raise NotFoundError("there is no pool")
    if len(pools) > 1:
        raise InvalidError(f"there are {len(pools)} pools; name one: {', '.join(pools[:8])}")
    return pools[0]


def _brief(row: dict[str, Any]) -> Sequence[str]:
    return row["name"], row["state"], row["path"]


def _details(row: dict[str, Any], exact: bool) -> Sequence[str]:
    owner = "-" if row["owner"] is None else f"{row['owner']}:{row['group']}"
    files = "-" if row["inodes"] is None else str(row["inodes"])
    return (
        owner,
        row["mode"] or "-",
        output.size(row["capacity"], exact=exact, none="none"),
        output.size(row["allocation"], exact=exact),
        files if row["files"] is None else f"{files}/{row['files']}",
        str(row["snapshots"]),
        row["path"],
    )


def _show_deleted(pool: Place, *, only_names: bool, as_json: bool) -> None:
    names = pool.names("trash")
    if only_names and not as_json:
        output.show_names(names)
        return
    found = [(name, output.pairs(pool.read(f"trash/{name}/info"))) for name in names]
    if as_json:
        output.show_json(
            [
                {
                    "name": name,
                    "item": facts["name"],
                    "uuid": facts["uuid"],
                    "deleted": facts["deleted"],
                    "purged_after": facts["purged after"],
                }
                for name, facts in found
            ]
        )
        return
    rows = [(name, facts["name"], facts["deleted"], facts["purged after"]) for name, facts in found]
    output.show_table(("Name", "Item", "Deleted", "Purged after"), rows)


@click.command("fs-info", cls=Command)
@an_item
@bytes_option
@json_option
def info(*, item: str, pool: str | None, exact: bool, as_json: bool) -> None:
    """Tell an item's state, place, owner and sizes."""
    place = the_item(item, pool)
    if as_json:
        output.show_json(_facts(place))
        return
    text = place.read("info")
    if exact:
        text = output.with_sizes(text, {name.capitalize(): place.value(name) for name in _SIZES})
    click.echo(text, nl=False)


_SIZES = ("capacity", "allocation")


def _facts(place: Place) -> dict[str, Any]:
    facts = output.pairs(place.read("info"))
    owner, _, group = facts.get("owner", "").partition(":")
    sizes = {name: place.value(name) for name in (*_SIZES, "available")}
    return {
        "name": place.path.name,
        "uuid": place.value("uuid"),
        "pool": facts["pool"],
        "state": place.value("status").partition(" ")[0],
        "path": place.link("data"),
        "owner": int(owner) if owner else None,
        "group": int(group) if group else None,
        "mode": facts.get("mode"),
        **{name: int(text) if text.isdigit() else None for name, text in sizes.items()},
        "snapshots": len(place.names("snapshots")),
        "origin": facts.get("clone of"),
        "problem": facts.get("problem"),
    }


@click.command("fs-dumpxml", cls=Command)
@an_item
def dumpxml(*, item: str, pool: str | None) -> None:
    """Print an item's document."""
    click.echo(the_item(item, pool).read("config.xml"), nl=False)


@click.command("fs-path", cls=Command)
@an_item
def path(*, item: str, pool: str | None) -> None:
    """Print where an item's directory is."""
    click.echo(the_item(item, pool).link("data"))


@click.command("fs-users", cls=Command)
@an_item
@json_option
def users(*, item: str, pool: str | None, as_json: bool) -> None:
    """Tell who has an item mounted, in whatever mount namespace."""
    lines = the_item(item, pool).read("users").splitlines()
    if as_json:
        output.show_json(lines)
    else:
        output.show_names(lines)
