"""Who this host is among those that share a pool: one number for each state directory."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

from fspoolfs.system import atomic

_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class Host:
    """A daemon's number, which nobody else has, and its host's name for people."""

    id: UUID
    name: str

    def encode(self) -> bytes:
        return json.dumps({"id": str(self.id), "name": self.name}).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> Host:
        """Raises `ValueError` for what `encode` did not write."""
        content = json.loads(data)
        if not isinstance(content, dict):
            raise ValueError("not an object")
        return cls(UUID(str(content.get("id"))), str(content.get("name", "")))


def this_host(state: Path) -> Host:
    """The number kept in the state directory, made if there is none; the name is today's."""
    file = state / "host"
    try:
        number = UUID(atomic.read_file(str(file), _LIMIT).decode("ascii").strip())
    except (FileNotFoundError, ValueError):
        number = uuid4()
        atomic.write_file(str(file), f"{number}\n".encode())
    return Host(number, socket.gethostname())
