"""The commands by name. A module is imported when one of its commands is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import click

from fspoolfs import __version__
from fspoolfs.cli.style import Group

PROGRAM = "fspoolfs"

#: Command → the module that has it, and its name there. The order is that of `--help`.
COMMANDS: Mapping[str, str] = {
    "mount": "serving:mount",
    "unmount": "serving:unmount",
}


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
def program(ctx: click.Context, mount_point: Path | None) -> None:
    ctx.obj = mount_point
    if ctx.invoked_subcommand is None:
        raise click.UsageError("name a command; `fspoolfs --help` lists them")
