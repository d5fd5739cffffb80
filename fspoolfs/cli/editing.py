"""The commands that change documents: fspool-edit and fs-edit in an editor, fs-limit one limit."""

from __future__ import annotations

import sys

import click
from lxml import etree

from fspoolfs.cli import jobs, output
from fspoolfs.cli.client import Place
from fspoolfs.cli.params import an_item, json_option, pool_argument, the_item, the_pool
from fspoolfs.cli.style import Command
from fspoolfs.errors import FspoolError, InvalidError
from fspoolfs.model import elements
from fspoolfs.model.limits import LIMITS


@click.command("fspool-edit", cls=Command)
@pool_argument
def edit_pool(*, pool: str) -> None:
    """Edit a pool's document in $VISUAL or $EDITOR, and define it anew."""
    place = the_pool(pool)
    # What waits for the next start is what a person goes on from.
    _edit(place, "pending.xml" if place.has("pending.xml") else "config.xml")


@click.command("fs-edit", cls=Command)
@an_item
def edit_item(*, item: str, pool: str | None) -> None:
    """Edit an item's document in $VISUAL or $EDITOR, and define it anew."""
    _edit(the_item(item, pool), "config.xml")


def _edit(place: Place, name: str) -> None:
    original = place.read(name)
    text = original
    while True:
        edited = click.edit(text, extension=".xml", require_save=False)
        if edited is None or edited == original:
            click.echo(f"{place.what}: not changed")
            return
        try:
            _define(place, edited.encode(errors="surrogateescape"))
        except FspoolError as error:
            if not sys.stdin.isatty():
                raise
            click.echo(str(error), err=True)
            if not click.confirm("Edit it again?", default=True, err=True):
                raise click.exceptions.Exit(1) from error
            text = edited
        else:
            click.echo(f"{place.what}: edited")
            return


def _define(place: Place, data: bytes) -> None:
    jobs.carry_out(lambda: place.write("config.xml", data), place, f"define {place.what}")


@click.command("fs-limit", cls=Command)
@an_item
@click.argument("limit", metavar="[LIMIT]", required=False, type=click.Choice(LIMITS))
@click.argument("value", required=False)
@click.option("--remove", is_flag=True, help="Take LIMIT away.")
@json_option
def limit(
    *, item: str, pool: str | None, limit: str | None, value: str | None, remove: bool, as_json: bool
) -> None:
    """Show the cgroup limits of an item, or set LIMIT, such as io.max or memory.high, to VALUE."""
    if remove and (limit is None or value is not None):
        raise click.UsageError("--remove takes a LIMIT and no VALUE")
    place = the_item(item, pool)
    root = elements.load(place.read("config.xml").encode(errors="surrogateescape"))
    if value is None and not remove:
        cgroups = root.find("permissions/cgroups")
        found = [] if cgroups is None else list(cgroups)
        limits = {str(one.tag): (one.text or "").strip() for one in found}
        shown = dict[str, str | None](limits) if limit is None else {limit: limits.get(limit)}
        _show(shown, as_json=as_json)
        return
    assert limit is not None
    _change(place, root, limit, value)
    _define(place, etree.tostring(root, encoding="utf-8"))
    click.echo(f"Limit {limit} of item {place.path.name} {'removed' if value is None else f'set to {value}'}")


def _show(limits: dict[str, str | None], *, as_json: bool) -> None:
    if as_json:
        output.show_json(limits)
        return
    for name, text in limits.items():
        click.echo(f"{name}: {'no limit' if text is None else text}")


def _change(place: Place, root: elements.Element, limit: str, value: str | None) -> None:
    """Set or remove one element; which there may be is for the daemon to say."""
    cgroups = _child(_child(root, "permissions"), "cgroups")
    try:
        element = cgroups.find(limit)
        if value is None:
            if element is None:
                raise InvalidError(f"{place.what} has no limit {limit}")
            cgroups.remove(element)
            # An empty one would say that there are no limits, and so does none.
            if not len(cgroups):
                parent = cgroups.getparent()
                assert parent is not None
                parent.remove(cgroups)
            return
        if element is None:
            element = etree.SubElement(cgroups, limit)
        element.text = value
    except ValueError as error:
        raise InvalidError(f"{value!r} is no value of a limit") from error


def _child(element: elements.Element, name: str) -> elements.Element:
    found = element.find(name)
    return etree.SubElement(element, name) if found is None else found
