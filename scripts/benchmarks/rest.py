"""Peers that are spoken to by REST over a unix socket: one connection, and a private daemon behind it."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from http import HTTPStatus
from pathlib import Path

from benchmarks.errors import BenchError
from benchmarks.private import private
from benchmarks.processes import Server

_START_LIMIT = 60.0
#: A unix socket's path has to be shorter than this: unix(7), with its final zero byte.
_SOCKET_PATH_BYTES = 108


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket, kept open between requests."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))

    def ask(
        self, method: str, address: str, expected: HTTPStatus, body: Mapping[str, object] | None = None
    ) -> bytes:
        """One request; what the answer holds. Raises `BenchError` unless its status is `expected`."""
        text = None if body is None else json.dumps(body)
        self.request(method, address, text, {"Content-Type": "application/json"})
        response = self.getresponse()
        answer = response.read()
        if response.status != expected:
            raise BenchError(f"{method} {address}: {answer.decode(errors='replace')}")
        return answer


@contextmanager
def serving(
    argv: Sequence[str | Path],
    place: Path,
    *,
    ping: str,
    socket_name: str = "socket",
    environment: Mapping[str, str] | None = None,
) -> Iterator[UnixConnection]:
    """Run a daemon whose socket lies in `place`; a connection once it answers the address `ping`."""
    path = place / socket_name
    if len(str(path)) >= _SOCKET_PATH_BYTES:
        raise BenchError(f"{path} is too long for a unix socket; name a shorter place with --dir or --images")
    with Server(private(argv), log=place / "log", env=environment, name=str(argv[0])) as server:
        server.wait_until(lambda: _answers(path, ping), what="its socket answers", seconds=_START_LIMIT)
        with closing(UnixConnection(path)) as connection:
            yield connection


def _answers(path: Path, ping: str) -> bool:
    with closing(UnixConnection(path)) as connection:
        try:
            connection.request("GET", ping)
            return connection.getresponse().status == HTTPStatus.OK
        except (FileNotFoundError, ConnectionError):
            return False
