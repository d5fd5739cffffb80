"""The guest's initial memory file system: a cpio archive in the format "newc" (cpio(5)), uncompressed."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

from vmtesting.machine import Machine

_HERE = Path(__file__).parent
_DIRECTORIES = ("dev", "proc", "sys", "bin", "modules", "outside", "memory", "root")
#: What the kernel opens for its first program before anything is mounted: c 5 1.
_CONSOLE = "dev/console"
_CONSOLE_DEVICE = (5, 1)
_PAD = 4
_HEADER_SIZE = 110


def initial_files(
    machine: Machine,
    command: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    layers: Sequence[Path],
) -> bytes:
    """The archive; the guest runs `command` in `directory`, and sees `layers` over its root."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    lines += [f"cd {shlex.quote(str(directory))} || exit", shlex.join(command)]
    files = {
        "bin/busybox": machine.busybox.read_bytes(),
        "init": (_HERE / "first").read_bytes(),
        "second": (_HERE / "second").read_bytes(),
        "layers": "".join(f"/outside{path}\n" for path in layers).encode(),
        "command": "\n".join([*lines, ""]).encode(),
        "modules/order": "".join(f"{path.name}\n" for path in machine.modules).encode(),
        **{f"modules/{path.name}": path.read_bytes() for path in machine.modules},
    }
    return b"".join(_archive(files))


def _archive(files: Mapping[str, bytes]) -> Iterator[bytes]:
    numbers = count(1)
    for name in _DIRECTORIES:
        yield from _entry(next(numbers), name, stat.S_IFDIR | 0o755)
    yield from _entry(next(numbers), _CONSOLE, stat.S_IFCHR | 0o600, device=_CONSOLE_DEVICE)
    for name, content in files.items():
        yield from _entry(next(numbers), name, stat.S_IFREG | 0o755, content)
    yield from _entry(0, "TRAILER!!!", 0)


def _entry(
    number: int, name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)
) -> Iterator[bytes]:
    encoded = name.encode() + b"\0"
    # inode, mode, owner, group, links, mtime, size, device of the file, device that it is, name, checksum
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
    yield b"070701" + b"".join(b"%08X" % field for field in fields)
    yield encoded + bytes(-(_HEADER_SIZE + len(encoded)) % _PAD)
    yield content + bytes(-len(content) % _PAD)
