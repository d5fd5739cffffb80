"""The commands for the snapshots of an item."""

from __future__ import annotations

import click

from fspoolfs.cli import jobs, output
from fspoolfs.cli.client import Place
from fspoolfs.cli.params import SnapshotName, an_item, json_option, the_item
from fspoolfs.cli.style import Command
from fspoolfs.errors import NotFoundError
from fspoolfs.names import check_name

_snapshot = click.argument("snapshot", type=SnapshotName())


def _require(place: Place, snapshot: str) -> None:
    if not place.has(f"snapshots/{check_name(snapshot, 'snapshot name')}"):
        raise NotFoundError(f"{place.what} has no snapshot {snapshot}")


def take(place: Place, snapshot: str) -> None:
    """Take a snapshot; return when it is made."""
    name = f"snapshots/{check_name(snapshot, 'snapshot name')}"
    jobs.carry_out(lambda: place.make(name), place, f"snapshot {place.what}", goes_on=True)


@click.command("fs-snapshot-create", cls=Command)
@an_item
@click.argument("snapshot", metavar="NAME")
def create(*, item: str, pool: str | None, snapshot: str) -> None:
    """Keep what an item holds now as snapshot NAME."""
    place = the_item(item, pool)
    take(place, snapshot)
    click.echo(f"Snapshot {snapshot} of item {place.path.name} created")


@click.command("fs-snapshot-list", cls=Command)
@an_item
@click.option("--name", "only_names", is_flag=True, help="Print the names alone.")
@json_option
def show(*, item: str, pool: str | None, only_names: bool, as_json: bool) -> None:
    """List the snapshots of an item, the oldest first."""
    place = the_item(item, pool)
    names = place.names("snapshots")
    if only_names and not as_json:
        output.show_names(names)
        return
    found = sorted((place.value(f"snapshots/{name}/created"), name) for name in names)
    if as_json:
        output.show_json(
            [
                {"name": name, "created": created, "path": place.link(f"snapshots/{name}/data")}
                for created, name in found
            ]
        )
        return
    rows = [(name, created, _state(place, name)) for created, name in found]
    output.show_table(("Name", "Created", "State"), rows)


def _state(place: Place, name: str) -> str:
    info = place.read(f"snapshots/{name}/info")
    return next(
        (line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("State:")), ""
    )


@click.command("fs-snapshot-delete", cls=Command)
@an_item
@_snapshot
def delete(*, item: str, pool: str | None, snapshot: str) -> None:
    """Delete a snapshot, or give up one that is being made."""
    place = the_item(item, pool)
    _require(place, snapshot)
    jobs.carry_out(lambda: place.remove(f"snapshots/{snapshot}"), place, f"delete snapshot {snapshot}")
    click.echo(f"Snapshot {snapshot} of item {place.path.name} deleted")


@click.command("fs-rollback", cls=Command)
@an_item
@_snapshot
def rollback(*, item: str, pool: str | None, snapshot: str) -> None:
    """Let an item hold what a snapshot of it holds; what it held is kept as another snapshot."""
    place = the_item(item, pool)
    _require(place, snapshot)
    jobs.carry_out(lambda: place.write("status", f"rollback {snapshot}\n"), place, f"roll back {place.what}")
    click.echo(f"Item {place.path.name} rolled back to {snapshot}")
