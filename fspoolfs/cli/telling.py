"""The commands that show what the whole tree tells: events, features, version."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager

import click

from fspoolfs import __version__
from fspoolfs.cli import output
from fspoolfs.cli.client import Tree, explained
from fspoolfs.cli.params import json_option, tree
from fspoolfs.cli.style import Command

_CHUNK = 1 << 16


@click.command("events", cls=Command)
@click.option(
    "--follow/--no-follow", "-f", default=True, help="Go on with what comes, until Ctrl-C: the default."
)
@click.option(
    "--lines", "-n", metavar="NUMBER", type=click.IntRange(min=0), help="Begin with the last NUMBER."
)
@click.option("--json", "as_json", is_flag=True, help="Print the lines of JSON that the tree has.")
def events(*, follow: bool, lines: int | None, as_json: bool) -> None:
    """Print what happened and what happens: pools, items, snapshots, jobs."""
    try:
        _tell(tree(), follow=follow, lines=lines, as_json=as_json)
    except KeyboardInterrupt:
        # This is how it is meant to end.
        return


def _tell(found: Tree, *, follow: bool, lines: int | None, as_json: bool) -> None:
    with _asking():
        descriptor = os.open(found.path / "events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        begun, rest = _read(descriptor, b"")
        if lines is not None:
            begun = begun[len(begun) - min(lines, len(begun)) :]
        _print(begun, as_json=as_json)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while follow:
            poll.poll()
            news, rest = _read(descriptor, rest)
            _print(news, as_json=as_json)
    finally:
        os.close(descriptor)


@contextmanager
def _asking() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise explained(error, "events") from error


def _read(descriptor: int, rest: bytes) -> tuple[list[str], bytes]:
    """The lines that are complete, and the beginning of one that is not."""
    pieces = [rest]
    with _asking():
        while piece := os.read(descriptor, _CHUNK):
            pieces.append(piece)
    *lines, rest = b"".join(pieces).split(b"\n")
    return [line.decode(errors="replace") for line in lines if line], rest


def _print(lines: list[str], *, as_json: bool) -> None:
    for line in lines:
        click.echo(line if as_json else _sentence(line))


def _sentence(line: str) -> str:
    """ "2016-04-28 16:57:14  item-created  tank/web", and whatever else the event says."""
    import json
    from datetime import datetime

    event = json.loads(line)
    when = datetime.fromtimestamp(event.pop("time")).strftime("%Y-%m-%d %H:%M:%S")
    kind, pool, item = event.pop("event"), event.pop("pool", ""), event.pop("item", "")
    what = "/".join(filter(None, (pool, item)))
    rest = "  ".join(f"{key}={value}" for key, value in event.items())
    return f"{when}  {kind:<18} {what}  {rest}".rstrip()


@click.command("features", cls=Command)
@json_option
def features(*, as_json: bool) -> None:
    """Tell which kinds of storage this host can use, and why not."""
    text = tree().read("features")
    if as_json:
        output.show_json(output.pairs(text))
    else:
        click.echo(text, nl=False)


@click.command("version", cls=Command)
@json_option
def version(*, as_json: bool) -> None:
    """Tell the version of this program, and of the daemon that serves the tree."""
    daemon = tree().value("version")
    if as_json:
        output.show_json({"command": __version__, "daemon": daemon})
    else:
        click.echo(f"command: {__version__}\ndaemon:  {daemon}")
