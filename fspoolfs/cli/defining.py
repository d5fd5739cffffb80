"""The commands that define pools and items, from documents and from options."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click

from fspoolfs.cli import jobs, pools, transient
from fspoolfs.cli.client import explained
from fspoolfs.cli.params import pool_argument, pool_option, the_pool, tree
from fspoolfs.cli.style import Command
from fspoolfs.errors import ExistsError, InvalidError
from fspoolfs.model import documents, formatting, values
from fspoolfs.model.definitions import (
    Host,
    ItemDefinition,
    Permissions,
    PoolDefinition,
    PoolSource,
    PoolType,
)
from fspoolfs.names import check_name
from fspoolfs.units import parse_capacity

_file = click.argument("file", type=click.Path(allow_dash=True))
_print_xml = click.option("--print-xml", is_flag=True, help="Print the document and do nothing.")


def _read(file: str) -> bytes:
    """The document in `file`, or on standard input for "-"."""
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise explained(error, file) from error


def _permissions(function: Callable[..., None]) -> Callable[..., None]:
    function = click.option("--group", metavar="GID", type=int, help="Its group.")(function)
    function = click.option("--owner", metavar="UID", type=int, help="Its owner.")(function)
    return click.option("--mode", metavar="OCTAL", help="Its mode, such as 0750.")(function)


def _given(mode: str | None, owner: int | None, group: int | None) -> Permissions:
    return Permissions(mode=values.mode(mode) if mode is not None else None, owner=owner, group=group)


# -- pools ----------------------------------------------------------------------------------------


def _define_pool(data: bytes) -> str:
    """Define what the document says; the pool's name."""
    name = documents.parse_pool(data).name
    tree().write("define", data)
    return name


@click.command("fspool-define", cls=Command)
@_file
def define_pool(*, file: str) -> None:
    """Define the pool that the document FILE describes, or define it anew; "-" is standard input."""
    click.echo(f"Pool {_define_pool(_read(file))} defined from {file}")


def _source(function: Callable[..., None]) -> Callable[..., None]:
    """The options of a pool's source, called as virsh calls them."""
    for option in (
        click.option("--source-format", metavar="FORMAT", help="The file system or the protocol."),
        click.option("--source-provider", metavar="NAME", help="Who has the volume: images, lvm or libvirt."),
        click.option("--source-volume", metavar="NAME", help="The volume."),
        click.option("--source-name", metavar="NAME", help="The storage pool or group that it belongs to."),
        click.option("--source-dev", metavar="PATH", help="The block device that is the volume."),
        click.option("--source-path", metavar="PATH", help="The directory that the server exports."),
        click.option(
            "--source-host", metavar="HOST[:PORT]", multiple=True, help="The server; may be repeated."
        ),
    ):
        function = option(function)
    return function


@click.command("fspool-define-as", cls=Command)
@click.argument("name")
@click.argument("type", metavar="[TYPE]", type=click.Choice([kind.value for kind in PoolType]), default="dir")
@click.option("--target", metavar="PATH", help="Where its root is.")
@click.option("--capacity", metavar="SIZE", help="How large its volume is: 10G, 10GiB, 10GB.")
@_source
@_permissions
@_print_xml
def define_pool_as(
    *,
    name: str,
    type: str,
    target: str | None,
    capacity: str | None,
    mode: str | None,
    owner: int | None,
    group: int | None,
    print_xml: bool,
    source_host: tuple[str, ...],
    source_path: str | None,
    source_dev: str | None,
    source_name: str | None,
    source_volume: str | None,
    source_provider: str | None,
    source_format: str | None,
) -> None:
    """Define the pool NAME of TYPE (dir, volume or network; else dir) from options."""
    definition = PoolDefinition(
        name=check_name(name, "pool name"),
        type=PoolType(type),
        capacity=parse_capacity(capacity) if capacity is not None else None,
        source=PoolSource(
            pool=source_name,
            provider=source_provider,
            volume=source_volume,
            device=source_dev,
            hosts=tuple(map(_host, source_host)),
            directory=source_path,
            format=source_format,
        ),
        target=target,
        permissions=_given(mode, owner, group),
    )
    data = formatting.format_pool(definition)
    # What nobody could define is not printed as if one could.
    documents.parse_pool(data)
    if print_xml:
        click.echo(data, nl=False)
        return
    _define_pool(data)
    click.echo(f"Pool {name} defined")


def _host(text: str) -> Host:
    """HOST or HOST:PORT; an IPv6 address with a port stands in brackets."""
    name, colon, port = text.rpartition(":")
    if not colon or (":" in name and not name.endswith("]")):
        return Host(name=text.strip("[]"))
    return Host(name=name.strip("[]"), port=values.port(port))


@click.command("fspool-create", cls=Command)
@_file
@click.option("--build", is_flag=True, help="Build it first.")
def create_pool(*, file: str, build: bool) -> None:
    """Define and start a transient pool from the document FILE.

    fspool-stop and fspool-destroy forget it when they have stopped it; its data is kept. Stopped by
    other means it stays defined. fspool-define makes it an ordinary pool.
    """
    data = _read(file)
    name = documents.parse_pool(data).name
    if tree().has(f"pools/{name}"):
        raise ExistsError(f"there is a pool {name} already; start it, or undefine it first")
    _define_pool(transient.marked(data))
    pool = the_pool(name)
    try:
        pools.carry_out(pool, "start build" if build else "start", "start")
    except BaseException:
        # As virsh has it: a transient pool that does not start never was.
        tree().remove(f"pools/{name}")
        raise
    click.echo(f"Pool {name} created from {file}")


# -- items ----------------------------------------------------------------------------------------


def _define_item(definition: ItemDefinition) -> None:
    """Write the document of an item; return when it is made."""
    assert definition.pool is not None
    found = tree()
    place = found.new_item(definition.pool, definition.name)
    data = formatting.format_item(definition)
    jobs.carry_out(lambda: found.write("define", data), place, f"define {place.what}")


@click.command("fs-define", cls=Command)
@_file
@pool_option
def define_item(*, file: str, pool: str | None) -> None:
    """Create the item that the document FILE describes, or define it anew; "-" is standard input.

    A directory of that name which the pool holds already is taken over as it is.
    """
    definition = documents.parse_item(_read(file))
    if pool is not None and definition.pool not in (None, pool):
        raise InvalidError(f"the document says that its pool is {definition.pool}, not {pool}")
    definition = replace(definition, pool=definition.pool or pool)
    if definition.pool is None:
        raise InvalidError(f"item {definition.name} names no pool; say --pool")
    _define_item(definition)
    click.echo(f"Item {definition.name} of pool {definition.pool} defined from {file}")


@click.command("fs-create-as", cls=Command)
@pool_argument
@click.argument("name")
@click.argument("capacity", required=False)
@click.option("--soft", metavar="LIMIT", help="From which usage on people are told: 80% or bytes.")
@click.option("--files", metavar="NUMBER", help="How many files and directories it may hold.")
@click.option("--path", metavar="PATH", help="Where it lies, from the pool's root; else /NAME.")
@_permissions
@_print_xml
def create_item_as(
    *,
    pool: str,
    name: str,
    capacity: str | None,
    soft: str | None,
    files: str | None,
    path: str | None,
    mode: str | None,
    owner: int | None,
    group: int | None,
    print_xml: bool,
) -> None:
    """Create the item NAME in POOL, with CAPACITY (10G, 10GiB, 10GB), from options."""
    definition = ItemDefinition(
        name=check_name(name, "item name"),
        pool=check_name(pool, "pool name"),
        capacity=parse_capacity(capacity) if capacity is not None else None,
        soft=values.soft_limit(soft) if soft is not None else None,
        files=values.files(files) if files is not None else None,
        path=path,
        permissions=_given(mode, owner, group),
    )
    data = formatting.format_item(definition)
    documents.parse_item(data)
    if print_xml:
        click.echo(data, nl=False)
        return
    if tree().pool(pool).has(f"items/{name}"):
        raise ExistsError(f"pool {pool} has an item {name} already")
    _define_item(definition)
    click.echo(f"Item {name} created in pool {pool}")
