"""The commands that show pools."""

from __future__ import annotations

from typing import Any

import click

from fspoolfs.cli import output
from fspoolfs.cli.client import Place, Tree
from fspoolfs.cli.params import bytes_option, json_option, pool_argument, the_pool, tree
from fspoolfs.cli.style import Command
from fspoolfs.errors import FspoolError, NotFoundError
from fspoolfs.model.states import PoolState

#: The files that hold a number of bytes, or "unknown".
_SIZES = ("capacity", "allocation", "available")


@click.command("fspool-list", cls=Command)
@click.option("--all", "everything", is_flag=True, help="Active pools and others.")
@click.option("--inactive", is_flag=True, help="Only pools that are not active.")
@click.option(
    "--autostart/--no-autostart", default=None, help="Only those that are started at boot, or are not."
)
@click.option("--details", is_flag=True, help="Their sizes, too.")
@click.option("--name", "only_names", is_flag=True, help="Print the names alone.")
@bytes_option
@json_option
def show(
    *,
    everything: bool,
    inactive: bool,
    autostart: bool | None,
    details: bool,
    only_names: bool,
    exact: bool,
    as_json: bool,
) -> None:
    """List pools: the active ones, unless told otherwise."""
    if everything and inactive:
        raise click.UsageError("--all and --inactive exclude each other")
    found = tree()
    rows = []
    for name in found.pools():
        row = _summary(found, name, details=details or as_json)
        if row is None or (autostart is not None and row["autostart"] is not autostart):
            continue
        is_active = row["state"] in _IN_USE
        if everything or is_active is not inactive:
            rows.append(row)
    if as_json:
        output.show_json(rows)
    elif only_names:
        output.show_names(row["name"] for row in rows)
    else:
        _show_rows(rows, details=details, exact=exact)


#: What virsh calls active: the pool is there, or on its way.
_IN_USE = frozenset((PoolState.ACTIVE, PoolState.STALLED, PoolState.STARTING, PoolState.STOPPING))


def _summary(found: Tree, name: str, *, details: bool) -> dict[str, Any] | None:
    """What is listed of a pool, `None` where it has gone meanwhile."""
    try:
        pool = found.pool(name)
        state = pool.value("status").partition(" ")[0]
        row: dict[str, Any] = {"name": name, "state": state, "autostart": pool.value("autostart") == "1"}
        if details:
            row |= {"uuid": pool.value("uuid"), "target": pool.link("root")}
            row |= {size: _size(pool, size) for size in _SIZES}
    except NotFoundError:
        return None
    except FspoolError as error:
        if not found.has(f"pools/{name}"):
            return None
        raise error
    return row


def _size(pool: Place, name: str) -> int | None:
    text = pool.value(name)
    return int(text) if text.isdigit() else None


def _show_rows(rows: list[dict[str, Any]], *, details: bool, exact: bool) -> None:
    titles = ["Name", "State", "Autostart"]
    cells = [[row["name"], row["state"], "yes" if row["autostart"] else "no"] for row in rows]
    if details:
        titles += [size.capitalize() for size in _SIZES]
        for row, line in zip(rows, cells, strict=True):
            line += [output.size(row[size], exact=exact) for size in _SIZES]
    output.show_table(titles, cells, right=[size.capitalize() for size in _SIZES])


@click.command("fspool-info", cls=Command)
@pool_argument
@bytes_option
@json_option
def info(*, pool: str, exact: bool, as_json: bool) -> None:
    """Tell a pool's state, place and sizes."""
    found = the_pool(pool)
    if as_json:
        output.show_json(_facts(found))
        return
    text = found.read("info")
    if exact:
        # Which of the lines are sizes is for the tree to know; three of them have files of their own.
        text = output.with_sizes(text, {name.capitalize(): found.value(name) for name in _SIZES})
    click.echo(text, nl=False)


def _facts(pool: Place) -> dict[str, Any]:
    facts = output.pairs(pool.read("info"))
    return {
        "name": pool.path.name,
        "uuid": pool.value("uuid"),
        "type": facts.get("type"),
        "state": pool.value("status").partition(" ")[0],
        "autostart": pool.value("autostart") == "1",
        "target": pool.link("root"),
        "filesystem": facts.get("file system"),
        **{name: _size(pool, name) for name in _SIZES},
        "items": int(facts["items"]) if "items" in facts else None,
        "pending": pool.has("pending.xml"),
        "problem": facts.get("problem"),
    }


@click.command("fspool-dumpxml", cls=Command)
@pool_argument
@click.option("--inactive", is_flag=True, help="What holds from the next start on.")
def dumpxml(*, pool: str, inactive: bool) -> None:
    """Print a pool's document."""
    found = the_pool(pool)
    name = "pending.xml" if inactive and found.has("pending.xml") else "config.xml"
    click.echo(found.read(name), nl=False)


@click.command("fspool-path", cls=Command)
@pool_argument
def path(*, pool: str) -> None:
    """Print where a pool's root is."""
    click.echo(the_pool(pool).link("root"))


@click.command("fspool-features", cls=Command)
@pool_argument
@json_option
def features(*, pool: str, as_json: bool) -> None:
    """Tell what a pool's storage can do, and why not."""
    text = the_pool(pool).read("features")
    if as_json:
        output.show_json(output.pairs(text))
    else:
        click.echo(text, nl=False)
