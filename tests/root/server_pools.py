"""Pools on each kind of server that a client program keeps mounted, for tests that do the same with all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

#: The fixtures of servers, and what a pool's source is there.
SERVERS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "sshfs": ("sshd", lambda sshd: sshd.source(sshd.place / str(uuid4()))),
    "cephfs": ("ceph", lambda ceph: ceph.source(f"/{uuid4()}")),
    "moosefs": ("moosefs", lambda moosefs: moosefs.source(f"{moosefs.directory()}/tank")),
}


def source_on(kind: str, request: pytest.FixtureRequest) -> str:
    """The <source> of a pool in a directory that is not there yet."""
    fixture, of = SERVERS[kind]
    return of(request.getfixturevalue(fixture))
