"""The commands that change pools which are defined."""

from __future__ import annotations

import click

from fspoolfs.cli import jobs, transient
from fspoolfs.cli.client import Place
from fspoolfs.cli.params import pool_argument, the_pool, tree
from fspoolfs.cli.style import Command
from fspoolfs.errors import InvalidError


def carry_out(pool: Place, verb: str, label: str) -> None:
    """Have a pool's `status` take `verb`; return when it is done."""
    jobs.carry_out(lambda: pool.write("status", f"{verb}\n"), pool, f"{label} {pool.what}")


@click.command("fspool-build", cls=Command)
@pool_argument
@click.option("--overwrite", "mode", flag_value="overwrite", help="Erase whatever the volume holds.")
@click.option(
    "--no-overwrite", "mode", flag_value="no-overwrite", help="Only where it is empty: the default."
)
def build(*, pool: str, mode: str | None) -> None:
    """Make a pool's directory, and its volume where that is missing."""
    found = the_pool(pool)
    carry_out(found, f"build {mode}" if mode else "build", "build")
    click.echo(f"Pool {pool} built")


@click.command("fspool-start", cls=Command)
@pool_argument
@click.option("--build", is_flag=True, help="Build it first.")
def start(*, pool: str, build: bool) -> None:
    """Start a pool: it is mounted, and its items are there."""
    found = the_pool(pool)
    carry_out(found, "start build" if build else "start", "start")
    click.echo(f"Pool {pool} started")


def _end(pool: str, verb: str, done: str) -> None:
    found = the_pool(pool)
    passing = transient.is_marked(found.read("config.xml"))
    carry_out(found, verb, verb)
    if passing:
        tree().remove(f"pools/{found.path.name}")
        done = f"{done}, and undefined, for it was transient"
    click.echo(f"Pool {pool} {done}")


@click.command("fspool-stop", cls=Command)
@pool_argument
def stop(*, pool: str) -> None:
    """Stop a pool; refused while an item is in use."""
    _end(pool, "stop", "stopped")


@click.command("fspool-destroy", cls=Command)
@pool_argument
def destroy(*, pool: str) -> None:
    """Stop a pool by force. Its data is kept."""
    _end(pool, "destroy", "destroyed")


@click.command("fspool-delete", cls=Command)
@pool_argument
def delete(*, pool: str) -> None:
    """Undo a pool's build: remove its directory or volume, when no item is left in it."""
    carry_out(the_pool(pool), "delete", "delete")
    click.echo(f"Pool {pool} deleted")


@click.command("fspool-undefine", cls=Command)
@pool_argument
def undefine(*, pool: str) -> None:
    """Forget a pool that is not active. Its data is kept."""
    found = the_pool(pool)
    tree().remove(f"pools/{found.path.name}")
    click.echo(f"Pool {pool} has been undefined")


@click.command("fspool-refresh", cls=Command)
@pool_argument
def refresh(*, pool: str) -> None:
    """Look again at what a pool's storage holds."""
    carry_out(the_pool(pool), "refresh", "refresh")
    click.echo(f"Pool {pool} refreshed")


@click.command("fspool-fence", cls=Command)
@pool_argument
@click.argument("host")
def fence(*, pool: str, host: str) -> None:
    """Free what HOST, which is off for good, had of a shared pool."""
    if any(letter.isspace() for letter in host):
        raise InvalidError(f"{host!r} is no host of a pool")
    carry_out(the_pool(pool), f"fence {host}", "fence")
    click.echo(f"Host {host} fenced off from pool {pool}")


@click.command("fspool-autostart", cls=Command)
@pool_argument
@click.option("--disable", is_flag=True, help="Do not start it.")
def autostart(*, pool: str, disable: bool) -> None:
    """Start a pool whenever the host is booted."""
    the_pool(pool).write("autostart", f"{int(not disable)}\n")
    click.echo(f"Pool {pool} {'unmarked' if disable else 'marked'} as autostarted")
