"""The commands that change items: each is one request to the control tree."""

from __future__ import annotations

import click

from fspoolfs.cli import jobs
from fspoolfs.cli.params import ItemName, an_item, pool_option, split, the_item, tree
from fspoolfs.cli.style import Command
from fspoolfs.errors import ExistsError, InvalidError
from fspoolfs.names import check_name
from fspoolfs.units import parse_capacity

_in_trash = click.argument("item", metavar="[POOL/]ITEM", type=ItemName("trash"))


@click.command("fs-clone", cls=Command)
@an_item
@click.argument("new_name", metavar="NEW")
@click.option("--snapshot", metavar="NAME", help="What one of its snapshots holds.")
def clone(*, item: str, pool: str | None, new_name: str, snapshot: str | None) -> None:
    """Make the item NEW, which holds what ITEM holds, in the same pool."""
    origin = the_item(item, pool)
    found = tree()
    inside, name = split(item, pool)
    target = found.new_item(inside, new_name)
    words = [new_name] if snapshot is None else [new_name, check_name(snapshot, "snapshot name")]
    if not any(letter.isspace() for letter in "".join(words)):
        request = f"clone {' '.join(words)}\n"
        jobs.carry_out(lambda: origin.write("status", request), target, f"clone {origin.what}")
    else:
        # The verb takes names without blanks only; a document takes any.
        from fspoolfs.model import formatting
        from fspoolfs.model.definitions import ItemDefinition, ItemOrigin

        if target.has(""):
            raise ExistsError(f"pool {inside} has an item {new_name} already")
        wanted = ItemDefinition(name=new_name, pool=inside, origin=ItemOrigin(fs=name, snapshot=snapshot))
        data = formatting.format_item(wanted)
        jobs.carry_out(lambda: found.write("define", data), target, f"clone {origin.what}")
    click.echo(f"Item {new_name} cloned from {name}")


@click.command("fs-delete", cls=Command)
@an_item
def delete(*, item: str, pool: str | None) -> None:
    """Delete an item: it goes to the trash of its pool, and is purged when the pool's retention is over."""
    place = the_item(item, pool)
    inside, name = split(item, pool)
    above = tree().pool(inside)
    jobs.carry_out(lambda: above.remove(f"items/{name}"), place, f"delete {place.what}", stays=False)
    click.echo(f"Item {name} deleted")


@click.command("fs-undelete", cls=Command)
@_in_trash
@pool_option
@click.option("--name", "new_name", metavar="NEW", help="Under another name.")
def undelete(*, item: str, pool: str | None, new_name: str | None) -> None:
    """Bring an item back from the trash; fs-list --deleted tells what is there."""
    inside, name = split(item, pool)
    tree().deleted(inside, name)
    target = tree().new_item(inside, new_name or name)
    if target.has(""):
        raise ExistsError(f"pool {inside} has an item {new_name or name} already; choose another --name")
    above = tree().pool(inside)
    jobs.carry_out(
        lambda: above.rename(f"trash/{name}", f"items/{target.path.name}"), target, f"undelete {name}"
    )
    click.echo(f"Item {target.path.name} undeleted")


@click.command("fs-purge", cls=Command)
@_in_trash
@pool_option
def purge(*, item: str, pool: str | None) -> None:
    """Remove an item from the trash for good."""
    inside, name = split(item, pool)
    tree().deleted(inside, name)
    tree().pool(inside).remove(f"trash/{name}")
    click.echo(f"Item {name} purged")


@click.command("fs-rename", cls=Command)
@an_item
@click.argument("new_name", metavar="NEW")
def rename(*, item: str, pool: str | None, new_name: str) -> None:
    """Rename an item in its pool."""
    the_item(item, pool)
    inside, name = split(item, pool)
    target = tree().new_item(inside, new_name)
    if target.has(""):
        # rename(2) would take it for the directory to be replaced.
        raise ExistsError(f"pool {inside} has an item {new_name} already")
    above = tree().pool(inside)
    jobs.carry_out(lambda: above.rename(f"items/{name}", f"items/{new_name}"), target, f"rename {name}")
    click.echo(f"Item {name} renamed to {new_name}")


@click.command("fs-resize", cls=Command)
@an_item
@click.argument("capacity")
@click.option("--delta", is_flag=True, help="CAPACITY is added to what it has.")
def resize(*, item: str, pool: str | None, capacity: str, delta: bool) -> None:
    """Give an item another CAPACITY: 10G, 10GiB, 10GB, bytes, or none."""
    place = the_item(item, pool)
    wanted = parse_capacity(capacity)
    if delta:
        now = parse_capacity(place.value("capacity"))
        if now is None or wanted is None:
            raise InvalidError(f"{place.what}: there is nothing to add to, or nothing to add; say a capacity")
        wanted += now
    text = "none" if wanted is None else str(wanted)
    jobs.carry_out(lambda: place.write("capacity", f"{text}\n"), place, f"resize {place.what}")
    click.echo(f"Size of item {place.path.name} successfully changed to {text}")


@click.command("fs-measure", cls=Command)
@an_item
def measure(*, item: str, pool: str | None) -> None:
    """Count what an item holds, where the storage does not count by itself."""
    place = the_item(item, pool)
    jobs.carry_out(lambda: place.write("status", "measure\n"), place, f"measure {place.what}")
    click.echo(place.value("allocation"))
