"""fspoolfs(1), from the commands themselves."""

from __future__ import annotations

import inspect
import re

import click

from fspoolfs import config
from fspoolfs.cli.program import PROGRAM, command_line
from manuals.roff import Page

_MOUNT_OPTIONS = """
mount(8) and lines of fstab start a daemon where mount.fspoolfs is installed in /sbin. The source is
fspoolfs, the type fspoolfs or fuse.fspoolfs:
"""
_FSTAB = "fspoolfs /run/fspool fspoolfs defaults,nofail,_netdev,state-dir=/srv/state 0 0"


def page() -> Page:
    made = Page(PROGRAM, 1, "pools of file systems as a tree of small text files")
    context = click.Context(command_line, info_name=PROGRAM)
    made.heading("SYNOPSIS")
    made.paragraph(f"{PROGRAM} {' '.join(command_line.collect_usage_pieces(context))}")
    made.heading("DESCRIPTION")
    made.paragraph(
        "A daemon mounts a control tree, in which every pool and every item is a directory of small "
        "files; see "
        "fspoolfs-tree(7). The commands below start and end it, and do for people and scripts what can "
        "be done with "
        "those files as well."
    )
    made.heading("OPTIONS")
    _options(made, command_line, context)
    made.heading("COMMANDS")
    for name in command_line.list_commands(context):
        command = command_line.get_command(context, name)
        assert command is not None
        _command(made, command, click.Context(command, info_name=name, parent=context))
    made.heading("MOUNT OPTIONS")
    made.paragraph(_MOUNT_OPTIONS)
    made.verbatim(_FSTAB)
    settings = sorted(set(config.SETTINGS) - {"mountpoint"})
    made.paragraph(
        f"Options are config=FILE.toml, allow_other, no_allow_other, sim, and with a value "
        f"{', '.join(name for name in settings if name != 'allow-other')}; they mean what the options "
        f"of the command "
        f"mount mean. What is for others (x-systemd.*, _netdev, nofail, ...) is left to them; ro and "
        f"remount are refused."
    )
    made.heading("CONFIGURATION FILE")
    made.paragraph(f"A TOML file has these keys: {', '.join(sorted(config.SETTINGS))}.")
    made.heading("EXIT STATUS")
    made.entry("0", "All is done.")
    made.entry(
        "1", "It was refused or has failed, and a sentence on stderr says why; or check has found something."
    )
    made.entry("2", "The command line is wrong.")
    made.entry("130", "It was interrupted.")
    made.heading("ENVIRONMENT")
    made.entry("FSPOOLFS_MOUNT", "The control tree that commands work on, where --mount does not say.")
    made.entry("NO_COLOR", "Nothing is coloured.")
    made.see_also(("fspoolfs-tree(7)", "fspoolfs-xml(5)", "mount(8)", "systemd.service(5)"))
    return made


def _command(made: Page, command: click.Command, context: click.Context) -> None:
    made.subheading(" ".join([str(context.info_name), *command.collect_usage_pieces(context)]))
    # A paragraph that begins with this mark keeps its lines.
    for piece in re.split(r"\n\s*\n", inspect.cleandoc(command.help or "")):
        if piece.startswith("\b"):
            made.verbatim(piece.removeprefix("\b").strip("\n"))
        elif piece:
            made.paragraph(piece)
    _options(made, command, context)


def _options(made: Page, command: click.Command, context: click.Context) -> None:
    for parameter in command.get_params(context):
        # Arguments stand in the line above, and are told of in the text.
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is not None and "--help" not in record[0]:
            made.entry(*record)
