"""The command `fs-move`: an item goes to another pool, by a copy.

The tree has no such request, so it is made of others, in an order in which the source is whole until
the copy is: snapshot the source, create the target under a name of its own, copy, sync, look that the
source has not changed, give the target its name, delete the source. Interrupted, it leaves the source,
and at most a snapshot "moving-ID" of it and a target whose name ends in ".moving". What was deleted
is in the trash of the source's pool.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final
from uuid import uuid4

import click

from fspoolfs.cli import jobs, snapshots
from fspoolfs.cli.bar import Bar
from fspoolfs.cli.client import Place, Tree
from fspoolfs.cli.params import PoolName, an_item, split, tree
from fspoolfs.cli.style import Command
from fspoolfs.errors import BusyError, ExistsError, FspoolError, InvalidError
from fspoolfs.model import documents, formatting
from fspoolfs.model.definitions import ItemDefinition
from fspoolfs.units import parse_capacity

#: How the name of a target ends that is not whole yet, and how that of the snapshot begins.
_UNFINISHED: Final = ".moving"
_SNAPSHOT: Final = "moving-"


@click.command("fs-move", cls=Command)
@an_item
@click.argument("target_pool", metavar="TARGET", type=PoolName())
@click.option("--name", "new_name", metavar="NEW", help="Under another name.")
@click.option("--capacity", metavar="SIZE", help="With another capacity; none where TARGET enforces none.")
@click.option("--without-snapshots", is_flag=True, help="Move it although its snapshots stay behind.")
def move(
    *,
    item: str,
    pool: str | None,
    target_pool: str,
    new_name: str | None,
    capacity: str | None,
    without_snapshots: bool,
) -> None:
    """Move an item to the pool TARGET.

    Everything in it is copied; then the original goes to the trash of its pool. It must not be in use.
    Its snapshots are not copied.
    """
    found = tree()
    source_pool, name = split(item, pool)
    source = found.item(source_pool, name)
    if found.pool(target_pool).path == found.pool(source_pool).path:
        raise InvalidError(f"item {name} is in pool {target_pool}; fs-rename renames it there")
    _check(source, without_snapshots=without_snapshots)
    definition = _wanted(source, target_pool, new_name or name)
    if capacity is not None:
        definition = replace(definition, capacity=parse_capacity(capacity), soft=None)
    _check_free(found, target_pool, definition.name)
    _move(found, source, source_pool, definition)
    click.echo(f"Item {name} moved from pool {source_pool} to {target_pool}/{definition.name}")


def _check(source: Place, *, without_snapshots: bool) -> None:
    if used := source.value("users"):
        raise BusyError(f"{source.what} is in use and cannot be moved: {used.splitlines()[0]}")
    # What an interrupted move has left is of no interest.
    kept = [name for name in source.names("snapshots") if not name.startswith(_SNAPSHOT)]
    if kept and not without_snapshots:
        raise BusyError(
            f"{source.what} has {len(kept)} snapshots, which would not be moved; say --without-snapshots"
        )


def _check_free(found: Tree, pool: str, name: str) -> None:
    for taken in (name, name + _UNFINISHED):
        if found.new_item(pool, taken).has(""):
            why = "; a move that was interrupted left it: delete it" if taken != name else ""
            raise ExistsError(f"pool {pool} has an item {taken} already{why}")


def _wanted(source: Place, pool: str, name: str) -> ItemDefinition:
    """What the item is to be in the other pool: the same, with an identity of its own."""
    definition = documents.parse_item(source.read("config.xml").encode(errors="surrogateescape"))
    return replace(definition, name=name, pool=pool, uuid=None, origin=None)


def _move(found: Tree, source: Place, source_pool: str, definition: ItemDefinition) -> None:
    assert definition.pool is not None
    target_pool = found.pool(definition.pool)
    unfinished = replace(definition, name=definition.name + _UNFINISHED)
    target = found.new_item(definition.pool, unfinished.name)
    snapshot = f"{_SNAPSHOT}{uuid4().hex[:12]}"
    state = _state(source)
    snapshots.take(source, snapshot)
    try:
        data = formatting.format_item(unfinished)
        jobs.carry_out(lambda: found.write("define", data), target, f"create {target.what}")
        try:
            _copy(source.link(f"snapshots/{snapshot}/data"), target.link("data"), f"copy {source.what}")
            if _state(source) != state:
                raise BusyError(f"{source.what} was changed while it was being moved; it stays where it is")
            whole = found.new_item(definition.pool, definition.name)
            jobs.carry_out(
                lambda: target_pool.rename(f"items/{target.path.name}", f"items/{whole.path.name}"),
                whole,
                f"rename {target.what}",
            )
        except BaseException:
            _discard(target_pool, target)
            raise
    finally:
        jobs.carry_out(lambda: source.remove(f"snapshots/{snapshot}"), source, f"delete snapshot {snapshot}")
    above = found.pool(source_pool)
    jobs.carry_out(
        lambda: above.remove(f"items/{source.path.name}"), source, f"delete {source.what}", stays=False
    )


def _discard(pool: Place, target: Place) -> None:
    """Remove the copy for good: it was nobody's yet."""
    uuid = target.value("uuid")
    jobs.carry_out(
        lambda: pool.remove(f"items/{target.path.name}"), target, f"delete {target.what}", stays=False
    )
    for name in pool.names("trash"):
        # Purged at once in a pool without a trash.
        with suppress(FspoolError):
            if name.startswith(target.path.name) and pool.value(f"trash/{name}/uuid") == uuid:
                pool.remove(f"trash/{name}")


def _state(source: Place) -> bytes:
    """A digest that differs when anything in the item was changed: every change changes a ctime."""
    digest = hashlib.sha256()

    def fail(error: OSError) -> None:
        raise error

    root = source.link("data")
    try:
        # By descriptors and without following links, which the item's owner may exchange meanwhile.
        for directory, names, files, descriptor in os.fwalk(root, onerror=fail):
            for name in sorted([".", *names, *files]):
                info = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                entry = (directory, name, info.st_ino, info.st_size, info.st_ctime_ns)
                digest.update(repr(entry).encode(errors="surrogateescape"))
            names.sort()
    except OSError as error:
        raise BusyError(f"{source.what}: {error.filename or root}: {error.strerror}") from error
    return digest.digest()


def _copy(source: str, target: str, label: str) -> None:
    """Copy all that is in a directory, with owners, modes, times, links and attributes, and sync it."""
    bar = Bar(label)
    bar.start()
    try:
        _run("cp", "--archive", "--sparse=auto", "--reflink=auto", "--", f"{source}/.", target)
        _run("sync", "--file-system", target)
    finally:
        bar.stop()


def _run(*argv: str) -> None:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
        )
    except OSError as error:
        raise FspoolError(f"{Path(argv[0]).name} cannot be run: {error.strerror}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"status {done.returncode}"]
        raise FspoolError(f"the copy failed: {said[0]}")
