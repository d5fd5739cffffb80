"""The command `fspoolfs`: parses the command line and hands over."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fspoolfs import __version__, config, mountpoint
from fspoolfs.cli import starting
from fspoolfs.errors import FspoolError


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 with a sentence on stderr, or 2 for a wrong command line."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "mount":
            return starting.start(_config(options))
        mountpoint.unmount(options.mountpoint or config.defaults().mountpoint)
    except FspoolError as error:
        print(f"fspoolfs: {error}", file=sys.stderr)
        return 1
    return 0


def _absolute(text: str) -> Path:
    return Path(text).absolute()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fspoolfs", description="Pools of file systems as a tree of small text files."
    )
    parser.add_argument("--version", action="version", version=f"fspoolfs {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    mount = commands.add_parser("mount", help="start a daemon that serves the control tree")
    where = f"default: {config.defaults().mountpoint}"
    mount.add_argument("mountpoint", nargs="?", type=_absolute, help=where)
    mount.add_argument("--state-dir", type=_absolute, metavar="DIR", help="what the host remembers of pools")
    mount.add_argument(
        "--storage-dir", type=_absolute, metavar="DIR", help="where pools lie that name no target"
    )
    mount.add_argument("--config", type=Path, metavar="FILE.toml", help="settings, which options override")
    mount.add_argument("--foreground", action="store_true", help="stay, and log to stderr")
    mount.add_argument(
        "--allow-other",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="let other users in, as far as modes allow (default for root)",
    )
    mount.add_argument("--grace", type=float, metavar="SECONDS", help="how long a verb is waited for")
    mount.add_argument(
        "--stall-time",
        type=float,
        metavar="SECONDS",
        help="after which a server that is silent stalls a pool",
    )
    mount.add_argument("--log-level", choices=config.LOG_LEVELS)
    mount.add_argument("--log-file", type=_absolute, metavar="FILE")
    mount.add_argument("--libvirt-uri", metavar="URI", help="whose storage pools libvirt's volumes are of")
    mount.add_argument(
        "--cgroup-parent", metavar="GROUP", help="below which control group those of items with limits are"
    )
    mount.add_argument("--sim", action="store_true", help="simulate storage in memory, touching no disk")
    unmount = commands.add_parser("unmount", help="unmount a control tree; its daemon ends")
    unmount.add_argument("mountpoint", nargs="?", type=_absolute, help=where)
    return parser


def _config(options: argparse.Namespace) -> config.Config:
    chosen = config.defaults()
    if options.config is not None:
        chosen = config.read(options.config, chosen)
    names = (
        "mountpoint",
        "state_dir",
        "storage_dir",
        "allow_other",
        "grace",
        "stall_time",
        "log_level",
        "log_file",
        "libvirt_uri",
        "cgroup_parent",
    )
    said = {
        name.replace("_", "-"): getattr(options, name) for name in names if getattr(options, name) is not None
    }
    chosen = config.apply(chosen, said, "command line")
    return replace(chosen, foreground=options.foreground, sim=options.sim)
