"""The commands by name. A module is imported when one of its commands is asked for."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import click

from fspoolfs import __version__
from fspoolfs.cli.output import wants_colour
from fspoolfs.cli.style import Group

PROGRAM = "fspoolfs"

#: Command → the module that has it, and its name there. The order is that of `--help`.
COMMANDS: Mapping[str, str] = {
    "mount": "serving:mount",
    "unmount": "serving:unmount",
    "wait": "waiting:wait",
    "check": "checking:check",
    "top": "top:top",
    "fspool-list": "pool_views:show",
    "fspool-info": "pool_views:info",
    "fspool-dumpxml": "pool_views:dumpxml",
    "fspool-path": "pool_views:path",
    "fspool-features": "pool_views:features",
    "fspool-define": "defining:define_pool",
    "fspool-define-as": "defining:define_pool_as",
    "fspool-create": "defining:create_pool",
    "fspool-edit": "editing:edit_pool",
    "fspool-build": "pools:build",
    "fspool-start": "pools:start",
    "fspool-stop": "pools:stop",
    "fspool-destroy": "pools:destroy",
    "fspool-delete": "pools:delete",
    "fspool-undefine": "pools:undefine",
    "fspool-refresh": "pools:refresh",
    "fspool-fence": "pools:fence",
    "fspool-autostart": "pools:autostart",
    "fs-list": "item_views:show",
    "fs-info": "item_views:info",
    "fs-dumpxml": "item_views:dumpxml",
    "fs-path": "item_views:path",
    "fs-users": "item_views:users",
    "fs-define": "defining:define_item",
    "fs-create-as": "defining:create_item_as",
    "fs-edit": "editing:edit_item",
    "fs-limit": "editing:limit",
    "fs-clone": "items:clone",
    "fs-rename": "items:rename",
    "fs-resize": "items:resize",
    "fs-measure": "items:measure",
    "fs-move": "moving:move",
    "fs-delete": "items:delete",
    "fs-undelete": "items:undelete",
    "fs-purge": "items:purge",
    "fs-snapshot-create": "snapshots:create",
    "fs-snapshot-list": "snapshots:show",
    "fs-snapshot-delete": "snapshots:delete",
    "fs-rollback": "snapshots:rollback",
    "events": "telling:events",
    "features": "telling:features",
    "version": "telling:version",
    "completion": "completion:completion",
}


class Interactive(NamedTuple):
    """No command was named on a terminal: a person wants the shell, where `before` precedes each command."""

    before: tuple[str, ...]


class Commands(Group):
    """Finds commands in `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command = getattr(import_module(f"fspoolfs.cli.{module}"), name)
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=Commands,
    invoke_without_command=True,
    help="Pools of file systems as a tree of small text files.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.option(
    "--mount",
    "mount_point",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The control tree that commands work on; else $FSPOOLFS_MOUNT, the default one, or the only one.",
)
@click.pass_context
def command_line(ctx: click.Context, mount_point: Path | None) -> Interactive | None:
    ctx.obj = mount_point
    ctx.color = wants_colour()
    if ctx.invoked_subcommand is not None:
        return None
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("name a command; `fspoolfs --help` lists them")
    return Interactive(() if mount_point is None else ("--mount", str(mount_point)))
