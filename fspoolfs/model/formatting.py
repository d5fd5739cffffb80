"""Writing: a definition becomes its canonical document, always the same bytes for the same definition.

Plain string work, because an item's document is written whenever one is created. What was not
said is not printed. Takes definitions as they are: whether they are valid is checked when a
document is read and when a request is taken.
"""

from __future__ import annotations

from typing import Final

from fspoolfs.model import idmaps
from fspoolfs.model.definitions import (
    DEFAULT_RETENTION,
    Auth,
    ItemDefinition,
    Permissions,
    PoolDefaults,
    PoolDefinition,
    PoolSource,
    Quota,
    SoftLimit,
)
from fspoolfs.units import format_duration

# A carriage return would be read back as a line feed, and a line feed in an attribute as a space.
_TEXT: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})
_ATTRIBUTE: Final = _TEXT | str.maketrans({"'": "&apos;", "\n": "&#10;", "\t": "&#9;"})


def format_pool(definition: PoolDefinition) -> bytes:
    """The canonical <fspool> document, in UTF-8, with a newline at its end."""
    lines = [f"<fspool type='{definition.type}'>"]
    _identity(lines, definition)
    if definition.capacity is not None:
        lines.append(f"  <capacity unit='bytes'>{definition.capacity}</capacity>")
    _source(lines, definition.source)
    permissions = _permissions(definition.permissions, "    ")
    if definition.target is not None or permissions:
        lines.append("  <target>")
        if definition.target is not None:
            lines.append(f"    <path>{definition.target.translate(_TEXT)}</path>")
        lines += _within("permissions", permissions, "    ")
        lines.append("  </target>")
    lines += _within("defaults", _sizes(definition.defaults, "    "), "  ")
    lines += [f"  {_quota(quota)}" for quota in definition.quotas]
    if definition.trash.retention != DEFAULT_RETENTION:
        lines.append(f"  <trash retention='{format_duration(definition.trash.retention)}'/>")
    return _closed(lines, "fspool", definition.metadata)


def format_item(definition: ItemDefinition, *, allocation: int | None = None) -> bytes:
    """The canonical <fs> document, in UTF-8, with a newline at its end.

    `allocation` is what the item holds, in bytes; it is printed for a reader and never read back.
    """
    lines = ["<fs>"]
    _identity(lines, definition)
    lines += _sizes(definition, "  ")
    if allocation is not None:
        lines.append(f"  <allocation unit='bytes'>{allocation}</allocation>")
    if definition.pool is not None or definition.origin is not None:
        lines.append(f"  <source{_item_source(definition)}/>")
    if definition.path is not None:
        lines.append(f"  <target>\n    <path>{definition.path.translate(_TEXT)}</path>\n  </target>")
    permissions = _permissions(definition.permissions, "  ")
    if definition.limits:
        permissions.append("    <cgroups>")
        permissions += [
            f"      <{name}>{value.translate(_TEXT)}</{name}>" for name, value in definition.limits
        ]
        permissions.append("    </cgroups>")
    lines += _within("permissions", permissions, "  ")
    if definition.idmap is not None:
        lines += idmaps.lines(definition.idmap, "  ")
    return _closed(lines, "fs", definition.metadata)


def _identity(lines: list[str], definition: PoolDefinition | ItemDefinition) -> None:
    lines.append(f"  <name>{definition.name.translate(_TEXT)}</name>")
    if definition.uuid is not None:
        lines.append(f"  <uuid>{definition.uuid}</uuid>")


def format_soft(soft: SoftLimit) -> str:
    """A soft limit as its attribute has it: "80%", or bytes."""
    return f"{soft.size}" if soft.percent is None else f"{soft.percent}%"


def _sizes(definition: ItemDefinition | PoolDefaults, indent: str) -> list[str]:
    """How much an item may hold. A capacity of 0 is no capacity, and may carry a soft limit."""
    lines = []
    if definition.capacity is not None or definition.soft is not None:
        soft = "" if definition.soft is None else f" soft='{format_soft(definition.soft)}'"
        lines.append(f"{indent}<capacity unit='bytes'{soft}>{definition.capacity or 0}</capacity>")
    if definition.files is not None:
        lines.append(f"{indent}<files>{definition.files}</files>")
    return lines


def _quota(quota: Quota) -> str:
    numbers = (("user", quota.user), ("group", quota.group), ("items", quota.items))
    given = "".join(f" {name}='{number}'" for name, number in numbers if number is not None)
    return f"<quota{given}/>" if quota.size is None else f"<quota{given} unit='bytes'>{quota.size}</quota>"


def _closed(lines: list[str], root: str, metadata: str | None) -> bytes:
    if metadata is not None:
        lines.append(f"  {metadata}")
    lines.append(f"</{root}>\n")
    return "\n".join(lines).encode()


def _within(name: str, inner: list[str], indent: str) -> list[str]:
    """`inner` between the tags of an element, nothing where there is nothing in it."""
    return [f"{indent}<{name}>", *inner, f"{indent}</{name}>"] if inner else []


def _attribute(name: str, value: str | None) -> str:
    """An attribute with a space in front, nothing for `None`."""
    return "" if value is None else f" {name}='{value.translate(_ATTRIBUTE)}'"


def _item_source(definition: ItemDefinition) -> str:
    pool = _attribute("fspool", definition.pool)
    if definition.origin is None:
        return pool
    return (
        f"{pool}{_attribute('fs', definition.origin.fs)}{_attribute('snapshot', definition.origin.snapshot)}"
    )


def _permissions(permissions: Permissions, indent: str) -> list[str]:
    """What is set, one level below `indent`."""
    lines = []
    if permissions.mode is not None:
        lines.append(f"{indent}  <mode>{permissions.mode:04o}</mode>")
    if permissions.owner is not None:
        lines.append(f"{indent}  <owner>{permissions.owner}</owner>")
    if permissions.group is not None:
        lines.append(f"{indent}  <group>{permissions.group}</group>")
    return lines


def _source(lines: list[str], source: PoolSource) -> None:
    inner = []
    if source.pool is not None:
        inner.append(f"    <pool{_attribute('name', source.pool)}{_attribute('provider', source.provider)}/>")
    if source.volume is not None:
        inner.append(f"    <volume{_attribute('name', source.volume)}/>")
    if source.device is not None:
        inner.append(f"    <device{_attribute('path', source.device)}/>")
    for host in source.hosts:
        port = "" if host.port is None else f" port='{host.port}'"
        inner.append(f"    <host{_attribute('name', host.name)}{port}/>")
    if source.directory is not None:
        inner.append(f"    <dir{_attribute('path', source.directory)}/>")
    if source.format is not None:
        inner.append(f"    <format{_attribute('type', source.format)}/>")
    if source.options is not None:
        inner.append(f"    <options>{source.options.translate(_TEXT)}</options>")
    if source.auth is not None:
        inner += _auth(source.auth)
    lines += _within("source", inner, "  ")


def _auth(auth: Auth) -> list[str]:
    start = f"    <auth{_attribute('type', auth.type)}{_attribute('username', auth.username)}"
    files = [
        f"      <{name}{_attribute('file', path)}/>"
        for name, path in (("secret", auth.secret), ("hosts", auth.hosts), ("config", auth.config))
        if path is not None
    ]
    return [f"{start}>", *files, "    </auth>"] if files else [f"{start}/>"]
