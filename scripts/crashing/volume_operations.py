"""The operations of a pool on a volume, for each format of file system, as a person types them.

Items of zfs are datasets, which is more than directories: those of them that zfs has a part in are here too.

The variables are those of `crashing.operations`; the pool "tank" is there in all of them, with items.
"""

from __future__ import annotations

from collections.abc import Sequence

from crashing.operations import FILLED, Operation, Track

FORMATS = ("ext4", "xfs", "btrfs", "zfs")
_MIB = 1 << 20
#: Bytes: xfs needs 300 MiB.
_SIZE, _LARGER = 320 * _MIB, 400 * _MIB
#: What the kernel lets grow while it is mounted without more than the right to mount.
_ONLINE = frozenset({"xfs", "btrfs"})

_STOPPED = 'echo stop > "$P/status"\n'
_NEW = '"$M/pools/new/status"'
#: Takes all pools away, whatever state they are in and whatever they hold.
_CLEARED = """
[ -d "$P" ] || {define}
for pool in "$M"/pools/*; do
    grep -q ^active "$pool/status" || echo 'start build' > "$pool/status"
    for entry in "$pool"/items/* "$pool"/trash/*; do [ ! -d "$entry" ] || rmdir "$entry"; done
    for entry in "$pool"/trash/*; do [ ! -d "$entry" ] || rmdir "$entry"; done
    echo stop > "$pool/status"
    echo delete > "$pool/status"
    rmdir "$pool"
done
"""


def volume_operations(format: str) -> Sequence[Operation]:
    """Every operation in which a volume of this format takes part."""

    def defined(name: str, size: int = _SIZE, place: str = "$M/define") -> str:
        return (
            f"echo \"<fspool type='volume'><name>{name}</name><capacity>{size}</capacity><source>"
            f"<pool name='images'/><volume name='{name}'/><format type='{format}'/></source></fspool>\" "
            f'> "{place}"\n'
        )

    preparation = defined("tank") + "echo 'start build' > \"$P/status\"\n" + FILLED
    new = defined("new")

    def one(
        name: str,
        *steps: str,
        prepare: str = "",
        pool: str = "tank",
        formats: bool = False,
        destroys: bool = False,
    ) -> Operation:
        return Operation(
            name=f"volume {name}",
            preparation=preparation,
            prepare=prepare,
            tracks=(Track(pool, steps),),
            formats=formats,
            destroys=destroys,
            clear=_CLEARED.format(define=defined("tank").strip()),
        )

    larger = defined("tank", _LARGER, "$P/config.xml").strip()
    growing: tuple[Operation, ...]
    if format in _ONLINE:
        growing = (
            one("grow", f'echo {_LARGER} > "$P/capacity"'),
            one("grow by document", larger),
        )
    else:
        growing = (one("grow", larger, 'echo start > "$P/status"', prepare=_STOPPED),)
    items = (
        one("item create", 'mkdir "$P/items/new"'),
        one("item delete", 'rmdir "$P/items/web"'),
        one("item rename", 'mv "$P/items/web" "$P/items/new"'),
        one("item clone", 'echo clone new > "$P/items/web/status"'),
        one("item snapshot", 'mkdir "$P/items/web/snapshots/new"'),
    )
    return (
        *(items if format == "zfs" else ()),
        one("build", f"echo build > {_NEW}", prepare=new, pool="new", formats=True),
        one(
            "build and start",
            f"echo build > {_NEW}",
            f"echo start > {_NEW}",
            prepare=new,
            pool="new",
            formats=True,
        ),
        one(
            "build overwrite",
            'echo "build overwrite" > "$P/status"',
            'echo start > "$P/status"',
            prepare=_STOPPED,
            formats=True,
            destroys=True,
        ),
        one("start", 'echo start > "$P/status"', prepare=_STOPPED),
        one("stop", 'echo stop > "$P/status"'),
        one("destroy", 'echo destroy > "$P/status"'),
        *growing,
        one(
            "delete",
            f"echo delete > {_NEW}",
            prepare=new + f"echo build > {_NEW}\n",
            pool="new",
            formats=True,
            destroys=True,
        ),
        one("undefine", 'rmdir "$P"', prepare=_STOPPED),
    )
