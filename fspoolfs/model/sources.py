"""Where a pool's root comes from, as its <source> says: a part of `fspoolfs.model.documents`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fspoolfs.model import values
from fspoolfs.model.definitions import Auth, Host, PoolSource, PoolType
from fspoolfs.model.elements import Element, attribute, attributes, children, empty, optional, refuse
from fspoolfs.names import check_name

#: Servers of one source; the schema takes time for them that grows with their square.
MAX_HOSTS: Final = 64
#: The files that <auth> may name, by element.
_AUTH_FILES: Final = ("secret", "hosts", "config")
_SOURCE_PARTS: Final[Mapping[PoolType, frozenset[str]]] = {
    PoolType.DIR: frozenset(),
    PoolType.VOLUME: frozenset({"pool", "volume", "device", "format", "options"}),
    PoolType.NETWORK: frozenset({"host", "dir", "format", "options", "auth"}),
}


def pool_source(root: Element, element: Element | None, kind: PoolType) -> PoolSource:
    if element is None:
        if kind is not PoolType.DIR:
            refuse(root, f"a pool of type {kind} lacks its <source>")
        return PoolSource()
    attributes(element)
    parts = children(
        element,
        _SOURCE_PARTS[kind],
        remarks=kind is not PoolType.DIR,
        repeated="host",
        where=f"the <source> of a pool of type {kind}",
    )
    match kind:
        case PoolType.DIR:
            return PoolSource()
        case PoolType.VOLUME:
            return _volume_source(element, parts)
        case PoolType.NETWORK:
            return _network_source(element, parts)


def _volume_source(element: Element, parts: Mapping[str, Element]) -> PoolSource:
    pool, volume, device = parts.get("pool"), parts.get("volume"), parts.get("device")
    if device is not None:
        if pool is not None or volume is not None:
            refuse(device, "<device> excludes <pool> and <volume>; name the volume in one way")
        return PoolSource(
            device=attribute(device, empty(device, "path"), "path", values.device),
            format=_format(parts),
            options=optional(parts, "options", values.options),
        )
    if pool is None or volume is None:
        refuse(element, "the <source> of a volume lacks <pool> and <volume>, or <device>")
    given = empty(pool, "name", "provider")
    return PoolSource(
        pool=attribute(pool, given, "name", check_name),
        provider=attribute(pool, given, "provider", values.word) if "provider" in given else None,
        volume=attribute(volume, empty(volume, "name"), "name", check_name),
        format=_format(parts),
        options=optional(parts, "options", values.options),
    )


def _network_source(element: Element, parts: Mapping[str, Element]) -> PoolSource:
    hosts = element.findall("host")
    directory = parts.get("dir")
    if not hosts and directory is None:
        refuse(element, "the <source> of a network pool lacks a <host> or a <dir>")
    if len(hosts) > MAX_HOSTS:
        refuse(hosts[MAX_HOSTS], f"<source> has {len(hosts)} hosts; at most {MAX_HOSTS} are accepted")
    path = None
    if directory is not None:
        path = attribute(directory, empty(directory, "path"), "path", values.directory)
    return PoolSource(
        hosts=tuple(_host(host) for host in hosts),
        directory=path,
        format=_format(parts),
        options=optional(parts, "options", values.options),
        auth=_auth(parts.get("auth")),
    )


def _host(element: Element) -> Host:
    given = empty(element, "name", "port")
    return Host(
        name=attribute(element, given, "name", values.host_name),
        port=attribute(element, given, "port", values.port) if "port" in given else None,
    )


def _format(parts: Mapping[str, Element]) -> str | None:
    element = parts.get("format")
    return None if element is None else attribute(element, empty(element, "type"), "type", values.word)


def _auth(element: Element | None) -> Auth | None:
    """What a server is asked to let us in with. A secret itself is refused: documents are read by many."""
    if element is None:
        return None
    given = attributes(element, "type", "username")
    parts = children(element, frozenset(_AUTH_FILES), where=f"<auth>, which holds {', '.join(_AUTH_FILES)}")
    files = {name: attribute(part, empty(part, "file"), "file", values.file) for name, part in parts.items()}
    return Auth(
        type=attribute(element, given, "type", values.word),
        username=attribute(element, given, "username", values.user_name) if "username" in given else None,
        **files,
    )
