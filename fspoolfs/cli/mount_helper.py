"""What mount(8) calls for `mount -t fspoolfs` and lines of fstab: starts a daemon as `fspoolfs mount` does.

    mount.fspoolfs SPEC DIR [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTION,...]

The exit status is that of mount(8). Options that are meant for others (systemd, mount itself) are left to
them, and what cannot be done is refused with the reason.
"""

from __future__ import annotations

import getopt
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from fspoolfs import config
from fspoolfs.cli import starting
from fspoolfs.config import Config
from fspoolfs.errors import FspoolError, InvalidError

#: mount(8), EXIT STATUS.
_USAGE, _FAILURE = 1, 32
#: A control tree comes from nowhere else, so that there is nothing to name.
_SPECS = ("fspoolfs", "none")
_TYPES = ("fspoolfs", "fuse.fspoolfs")
_USAGE_LINE = "mount.fspoolfs SPEC DIR [-sfnv] [-t TYPE] [-o OPTION,...]"

#: What is true of every control tree (it holds neither programs nor devices), or concerns mount(8) alone.
_NOTHING_TO_DO = frozenset(
    ("rw", "defaults", "auto", "noauto", "nofail", "nosuid", "nodev", "noexec", "_netdev", "silent", "loud")
)
#: Of whom an option is that begins like this: systemd.mount(5), mount(8), fstab(5).
_OTHERS = ("x-", "X-", "comment=")
_REFUSED = {
    "ro": "requests are writes, which modes allow or forbid; leave it out",
    "remount": "a daemon keeps the options that it was started with; unmount it and mount it again",
    "bind": "a control tree is mounted by its daemon; use mount --bind for what is mounted already",
    "suid": "a control tree never has programs that run as somebody else",
    "dev": "a control tree never has devices",
    "exec": "a control tree never has programs",
    "user": "a user starts a daemon of his own by `fspoolfs mount`",
    "users": "a user starts a daemon of his own by `fspoolfs mount`",
    "owner": "a user starts a daemon of his own by `fspoolfs mount`",
    "group": "a user starts a daemon of his own by `fspoolfs mount`",
}
#: One option; what stands in double quotes may hold commas (mount(8)).
_OPTION = re.compile(r'(?:[^,"]|"[^"]*")+')


@dataclass(frozen=True, slots=True)
class Request:
    """What mount(8) wants: a daemon with `config`, unless it is only `pretended`."""

    config: Config
    pretended: bool
    verbose: bool


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Never returns: exits with 0, or with the status of mount(8) and a sentence on stderr."""
    try:
        request = parse(sys.argv[1:] if arguments is None else arguments)
    except FspoolError as error:
        _complain(error)
        sys.exit(_USAGE)
    try:
        if not request.pretended:
            starting.start(request.config)
    except FspoolError as error:
        _complain(error)
        sys.exit(_FAILURE)
    if request.verbose:
        print(f"{request.config.mountpoint}: a control tree, state in {request.config.state_dir}")
    sys.exit(0)


def _complain(error: FspoolError) -> None:
    print(f"mount.fspoolfs: {error}", file=sys.stderr)


def parse(arguments: Sequence[str]) -> Request:
    """Raises `InvalidError`."""
    try:
        flags, places = getopt.gnu_getopt(list(arguments), "sfnvo:t:N:")
    except getopt.GetoptError as error:
        raise InvalidError(f"{error}; usage: {_USAGE_LINE}") from None
    if len(places) != 2:
        raise InvalidError(f"usage: {_USAGE_LINE}")
    spec, directory = places
    if spec not in _SPECS:
        raise InvalidError(f"a control tree is mounted from nowhere: write fspoolfs instead of {spec!r}")
    given = [flag for flag, _ in flags]
    if "-N" in given:
        raise InvalidError("-N: enter the namespace and mount there")
    for flag, value in flags:
        if flag == "-t" and value not in _TYPES:
            raise InvalidError(f"type {value!r} is none of {', '.join(_TYPES)}")
    options = [one for flag, value in flags if flag == "-o" for one in _OPTION.findall(value)]
    chosen = _configured(options, directory, sloppy="-s" in given)
    return Request(chosen, pretended="-f" in given, verbose="-v" in given)


def _configured(options: Sequence[str], directory: str, *, sloppy: bool) -> Config:
    """The settings: those of a file that is named by `config`, and over them each option by itself."""
    chosen, settings = config.defaults(), dict[str, object]()
    for option in options:
        name, equals, text = option.partition("=")
        name, text = name.replace("_", "-") if not name.startswith("_") else name, text.replace('"', "")
        if name in _NOTHING_TO_DO or option.startswith(_OTHERS):
            continue
        if name in _REFUSED:
            raise InvalidError(f"option {option}: {_REFUSED[name]}")
        if name == "config" and text:
            chosen = config.read(Path(text), chosen)
        elif name in ("allow-other", "no-allow-other") and not equals:
            settings["allow-other"] = name == "allow-other"
        elif name == "sim" and not equals:
            chosen = replace(chosen, sim=True)
        elif name in config.SETTINGS and name not in ("allow-other", "mountpoint") and text:
            settings[name] = _typed(name, text)
        elif not sloppy:
            raise InvalidError(f"there is no option {option!r}; see fspoolfs(1)")
    return config.apply(chosen, {**settings, "mountpoint": directory}, "mount options")


def _typed(name: str, text: str) -> object:
    if name not in config.TIMES:
        return text
    try:
        return float(text)
    except ValueError:
        raise InvalidError(f"option {name}: {text!r} is no number of seconds") from None
