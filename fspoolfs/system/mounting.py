"""Mounting a block device: made ready where nobody can see it, and put in its place in one step.

The new mount API (fsopen(2), fsmount(2), move_mount(2); Linux 5.2) hands out a mount as a descriptor
before it is anywhere in the tree. What is looked at through it is the device's file system for
certain, and a process that is killed meanwhile leaves nothing mounted. nosuid and nodev always.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from fspoolfs.system import mount_api

#: Options that are a mount's and not the file system's, with their MOUNT_ATTR_*.
_ATTRIBUTES = {
    "ro": mount_api.READ_ONLY,
    "noexec": 0x8,
    "noatime": 0x10,
    "strictatime": 0x20,
    "nodiratime": 0x80,
    "nosymfollow": 0x200000,
    # What is so anyway.
    **dict.fromkeys(("nosuid", "nodev", "rw", "exec", "relatime", "defaults"), 0),
}
#: Options that a pool's root never has.
FORBIDDEN = frozenset({"suid", "dev", "loop", "remount", "bind", "rbind", "move"})


class MountError(OSError):
    """The kernel's refusal; `told` is what the file system said about it, which is often nothing."""

    told: str = ""


def mount_detached(device: str, fs_type: str, options: str) -> int:
    """A descriptor (O_PATH) of the root of the file system on `device`, mounted nowhere.

    It is unmounted when the descriptor is closed, although what was opened in it stays, unless `move`
    has put it somewhere. `options` is a
    list with commas, as mount(8) takes it. Raises `MountError`.
    """
    words = [word for word in options.split(",") if word]
    attributes = mount_api.NOSUID | mount_api.NODEV
    context = mount_api.open_file_system(fs_type)
    try:
        with _told(context, "source"):
            mount_api.set_string(context, "source", device)
        for word in words:
            name, equals, text = word.partition("=")
            attributes |= _ATTRIBUTES.get(word, 0)
            with _told(context, name):
                if equals:
                    mount_api.set_string(context, name, text)
                elif word == "ro" or word not in _ATTRIBUTES:
                    mount_api.set_flag(context, word)
        with _told(context, ""):
            mount_api.create(context)
        return mount_api.mount(context, attributes)
    finally:
        os.close(context)


def unsupported_options(options: str) -> list[str]:
    """Those of a list with commas that are no attributes of a mount but a file system's own."""
    return [word for word in options.split(",") if word and word not in _ATTRIBUTES]


def copy_detached(directory: int, options: str = "") -> int:
    """A descriptor (O_PATH) of what is mounted where `directory` was opened, without what is mounted in it.

    Mounted nowhere, with the attributes that `options` names; as with `mount_detached`.
    """
    tree = mount_api.copy_tree(directory)
    try:
        restrict(tree, options)
    except OSError:
        os.close(tree)
        raise
    return tree


def restrict(mount: int, options: str) -> None:
    """Give a mount the attributes that `options` names, nosuid and nodev, and none of who is beside it."""
    attributes = mount_api.NOSUID | mount_api.NODEV
    for word in options.split(","):
        attributes |= _ATTRIBUTES.get(word, 0)
    mount_api.set_attributes(mount, attributes, propagation=mount_api.MS_PRIVATE)


def forbid_writing(mount: int) -> None:
    """Make the mount read-only whose root `mount` is a descriptor of."""
    mount_api.set_attributes(mount, mount_api.READ_ONLY)


def share(mount: int) -> None:
    """Let what is mounted in it from now on appear in later copies of the mount, too."""
    mount_api.set_attributes(mount, 0, propagation=mount_api.MS_SHARED)


def stop_sharing(mount: int) -> None:
    """Undo `share`: only then what is mounted in it can be moved elsewhere."""
    mount_api.set_attributes(mount, 0, propagation=mount_api.MS_PRIVATE)


def move(mount: int, place: int) -> None:
    """Put what `mount_detached` has returned on the directory behind the descriptor `place`."""
    mount_api.move(mount, place)


@contextmanager
def _told(context: int, option: str) -> Iterator[None]:
    """A refusal carries the messages of the file system about it (fsopen(2)): "e ext4: ..."."""
    try:
        yield
    except OSError as error:
        refusal = MountError(error.errno, error.strerror)
        refusal.told = _messages(context) or (f"option {option!r}" if option else "")
        raise refusal from None


def _messages(context: int) -> str:
    found: list[str] = []
    while True:
        try:
            found.append(os.read(context, 1024).decode("utf-8", "replace")[2:].strip())
        except OSError:  # ENODATA: that was all
            return "; ".join(found)
