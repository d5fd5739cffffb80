"""The operations that a pool of directories can be asked for, as a person types them.

In every line $M is the mount point, $S the storage directory, $D the daemon's process id; $P is the
pool "tank" in the control tree, $R its real directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Two items that hold all kinds of files, and one in the trash.
FILLED = r"""
for item in web other old; do
    mkdir "$P/items/$item"
    data=$P/items/$item/data
    mkdir -p "$data/deep/er"
    echo "$item" > "$data/name"
    seq 20000 > "$data/deep/numbers"
    truncate -s 1M "$data/deep/sparse"
    ln -s ../name "$data/deep/link"
    ln "$data/name" "$data/deep/er/second name"
    setfattr -n user.note -v "$item" "$data/name"
    chown 1000:1001 "$data/deep/er"
    chmod 640 "$data/name"
done
rmdir "$P/items/old"
"""
#: What every operation on pools of directories finds: one with these, and a directory that is no item.
PREPARATION = f"""
mkdir "$M/pools/tank"
echo 'start build' > "$P/status"
{FILLED}
mkdir "$R/found"
echo found > "$R/found/file"
"""


@dataclass(frozen=True, slots=True)
class Track:
    """What one person does to one pool, one step after the other. Each step is one operation."""

    pool: str
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """An earlier operation that was killed before its change number `at`."""

    line: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`prepare` comes on top of `preparation`, which most share; the tracks then run at the same time.

    `before` is done again after each start of the daemon, because a start undoes it. `resumed` marks
    what a start of the daemon carries on, so that a pool looks different after it. With `interrupted`
    the operation finds what a crash left, on a host that was booted since. One that `formats` may leave
    a volume for its repetition that is half done, and one that `destroys` may do away with what was there.
    `clear` takes away all there is, and nothing may be left.
    """

    name: str
    preparation: str = PREPARATION
    prepare: str = ""
    before: str = ""
    resumed: bool = False
    tracks: tuple[Track, ...]
    interrupted: Interrupted | None = None
    formats: bool = False
    destroys: bool = False
    clear: str = ""


_NEW_POOL = 'mkdir "$M/pools/new"\n'
_BUILT = _NEW_POOL + 'echo build > "$M/pools/new/status"\n'
_STOPPED = 'echo stop > "$P/status"\n'
_NO_TRASH = (
    """echo "<fspool type='dir'><name>tank</name><trash retention='none'/></fspool>" > "$P/config.xml"\n"""
)
#: Where the pool is going to be; a change of the target waits until the pool is stopped.
_MADE_ELSEWHERE = 'mkdir "$S/elsewhere"\n'
_PENDING = (
    """echo "<fspool type='dir'><name>tank</name><target><path>$S/elsewhere</path></target></fspool>" """
    '> "$P/config.xml"\n'
)
_OPEN_TO_ALL = (
    """echo "<fspool type='dir'><name>tank</name><target><permissions><mode>1777</mode></permissions>"""
    """</target></fspool>" > "$P/config.xml"\n"""
)
#: A change of which a part takes effect at once.
_OPEN_TO_ALL_ELSEWHERE = _OPEN_TO_ALL.replace("<target>", "<target><path>$S/elsewhere</path>")
#: Ends when the daemon has removed what was purged, or has ended.
_DRAINED = (
    'until [ -z "$(ls -A "$R/.fspool/purge")" ]; do cat "$M/version" > /dev/null || exit 1; sleep 0.01; done'
)
_ENDED = 'until ! grep -q "^State:[[:space:]]*[^Z[:space:]]" "/proc/$D/status"; do sleep 0.01; done'


def _item(name: str, rest: str = "") -> str:
    return f"""echo "<fs><name>{name}</name><source fspool='tank'/>{rest}</fs>" """


def _one(
    name: str,
    *steps: str,
    prepare: str = "",
    before: str = "",
    pool: str = "tank",
    resumed: bool = False,
) -> Operation:
    return Operation(name=name, prepare=prepare, before=before, tracks=(Track(pool, steps),), resumed=resumed)


def _recovery(line: str, *, at: int) -> Operation:
    verb = line.split()[0]
    return Operation(
        name=f"recover {verb}",
        tracks=(Track("tank", ('echo start > "$P/status"',)),),
        interrupted=Interrupted(line=line, at=at),
    )


_POOL_OPERATIONS = (
    _one("pool define by mkdir", 'mkdir "$M/pools/new"', pool="new"),
    _one(
        "pool define by document",
        """echo "<fspool type='dir'><name>new</name><trash retention='48h'/></fspool>" > "$M/define" """,
        pool="new",
    ),
    _one("pool redefine", _OPEN_TO_ALL),
    _one("pool redefine inactive", _OPEN_TO_ALL, prepare=_STOPPED),
    _one("pool redefine pending", _PENDING, prepare=_MADE_ELSEWHERE),
    _one("pool redefine both", _OPEN_TO_ALL_ELSEWHERE, prepare=_MADE_ELSEWHERE),
    _one("pool redefine pending away", _OPEN_TO_ALL, prepare=_MADE_ELSEWHERE + _PENDING),
    _one("pool build", 'echo build > "$M/pools/new/status"', prepare=_NEW_POOL, pool="new"),
    _one(
        "pool build deep",
        'echo build > "$M/pools/new/status"',
        prepare="""echo "<fspool type='dir'><name>new</name><target><path>$S/a/b/new</path></target>"""
        '</fspool>" > "$M/define"\n',
        pool="new",
    ),
    _one("pool first start", 'echo start > "$M/pools/new/status"', prepare=_BUILT, pool="new"),
    _one("pool start", 'echo start > "$P/status"', prepare=_STOPPED),
    _one("pool stop", 'echo stop > "$P/status"'),
    _one("pool stop changed", 'mkdir "$P/items/new"', 'echo stop > "$P/status"'),
    _one("pool stop pending", 'echo stop > "$P/status"', prepare=_MADE_ELSEWHERE + _PENDING),
    _one(
        "pool restart pending",
        'echo stop > "$P/status"',
        'echo start > "$P/status"',
        prepare=_MADE_ELSEWHERE + _PENDING,
    ),
    _one("pool destroy", 'echo destroy > "$P/status"'),
    _one(
        "pool delete",
        'echo delete > "$M/pools/new/status"',
        prepare=_BUILT + 'echo start > "$M/pools/new/status"\necho stop > "$M/pools/new/status"\n',
        pool="new",
    ),
    _one(
        "pool undefine",
        'rmdir "$M/pools/tank"',
        prepare='echo 1 > "$P/autostart"\n' + _STOPPED,
        before=_STOPPED,
        resumed=True,
    ),
    _one("pool undefine and define", 'rmdir "$M/pools/tank"', 'mkdir "$M/pools/tank"', prepare=_STOPPED),
    _one("pool autostart on", 'echo 1 > "$P/autostart"'),
    _one("pool autostart off", 'echo 0 > "$P/autostart"', prepare='echo 1 > "$P/autostart"\n'),
)

_ITEM_OPERATIONS = (
    _one("item create", 'mkdir "$P/items/new"'),
    _one(
        "item create as user",
        'setpriv --reuid=1000 --regid=1000 --clear-groups -- mkdir -m 700 "$P/items/new"',
        prepare=_OPEN_TO_ALL,
    ),
    _one(
        "item create deep",
        _item("new", "<target><path>/customers/a/new</path></target>") + '> "$M/define"',
    ),
    _one(
        "item adopt",
        _item("found", "<permissions><mode>0700</mode><owner>1000</owner></permissions>") + '> "$M/define"',
    ),
    _one("item chmod", 'chmod 2750 "$P/items/web"'),
    _one("item chown", 'chown 1000:1001 "$P/items/web"'),
    _one(
        "item redefine",
        _item("web", "<permissions><mode>0700</mode></permissions><metadata><note/></metadata>")
        + '> "$P/items/web/config.xml"',
    ),
    _one("item rename", 'mv "$P/items/web" "$P/items/shop"'),
    _one(
        "item rename deep",
        'mv "$P/items/far" "$P/items/near"',
        prepare=_item("far", "<target><path>/customers/a/far</path></target>") + '> "$M/define"\n',
    ),
    _one(
        "item delete deep",
        'rmdir "$P/items/far"',
        prepare=_item("far", "<target><path>/customers/a/far</path></target>") + '> "$M/define"\n',
    ),
    _one("item delete", 'rmdir "$P/items/web"'),
    _one("item delete for good", 'rmdir "$P/items/web"', _DRAINED, prepare=_NO_TRASH),
    _one("item undelete", 'mv "$P/trash/old" "$P/items/old"'),
    _one("item undelete renamed", 'mv "$P/trash/old" "$P/items/again"'),
    _one("item purge", 'rmdir "$P/trash/old"', _DRAINED),
    _one("item clone", 'echo "clone copy" > "$P/items/web/status"'),
)

#: An item that has changed since its snapshot, and a deleted one with a snapshot.
_KEPT = 'mkdir "$P/items/other/snapshots/kept"\necho later > "$P/items/other/data/later"\n'
_KEPT_IN_TRASH = (
    'mv "$P/trash/old" "$P/items/old"\nmkdir "$P/items/old/snapshots/kept"\nrmdir "$P/items/old"\n'
)
_ROLLBACK = 'echo "rollback kept" > "$P/items/other/status"'

_SNAPSHOT_OPERATIONS = (
    _one("snapshot take", 'mkdir "$P/items/web/snapshots/new"'),
    _one(
        "snapshot rename",
        'mv "$P/items/other/snapshots/kept" "$P/items/other/snapshots/renamed"',
        prepare=_KEPT,
    ),
    _one("snapshot delete", 'rmdir "$P/items/other/snapshots/kept"', _DRAINED, prepare=_KEPT),
    _one("snapshot rollback", _ROLLBACK, prepare=_KEPT),
    _one("snapshot clone", 'echo "clone copy kept" > "$P/items/other/status"', prepare=_KEPT),
    _one("snapshot item delete", 'rmdir "$P/items/other"', prepare=_KEPT),
    _one("snapshot item undelete", 'mv "$P/trash/old" "$P/items/old"', prepare=_KEPT_IN_TRASH),
    _one("snapshot item purge", 'rmdir "$P/trash/old"', _DRAINED, prepare=_KEPT_IN_TRASH),
)

_LIMITED = (
    """echo "<fspool type='dir'><name>tank</name><defaults><capacity unit='MiB'>64</capacity></defaults>"""
    """</fspool>" > "$P/config.xml"\n"""
)
_LIMITED_ITEM = _LIMITED + 'mkdir "$P/items/new" "$P/items/new/snapshots/kept"\n'

#: For storage that enforces a capacity alone.
LIMIT_OPERATIONS: Sequence[Operation] = (
    _one("limit create", 'mkdir "$P/items/new"', prepare=_LIMITED),
    _one("limit resize", 'echo 48M > "$P/items/new/capacity"', prepare=_LIMITED_ITEM),
    _one("limit rollback", 'echo "rollback kept" > "$P/items/new/status"', prepare=_LIMITED_ITEM),
    _one("limit clone", 'echo "clone copy" > "$P/items/new/status"', prepare=_LIMITED_ITEM),
)

_SEQUENCES = (
    _one(
        "rename chain",
        'mv "$P/items/web" "$P/items/shop"',
        'mv "$P/items/other" "$P/items/web"',
        'mv "$P/items/shop" "$P/items/other"',
    ),
    _one(
        "delete and create",
        'rmdir "$P/items/web"',
        'mkdir "$P/items/web"',
        'rmdir "$P/items/web"',
        'mkdir "$P/items/web"',
    ),
    _one(
        "delete and undelete",
        'rmdir "$P/items/web"',
        'mv "$P/items/other" "$P/items/web"',
        'mv "$P/trash/web" "$P/items/other"',
    ),
    Operation(
        name="two pools",
        prepare=_BUILT + 'echo start > "$M/pools/new/status"\nmkdir "$M/pools/new/items/web"\n',
        tracks=(
            Track("tank", ('mkdir "$P/items/new"', 'mv "$P/items/web" "$P/items/shop"')),
            Track("new", ('rmdir "$M/pools/new/items/web"', 'mkdir "$M/pools/new/items/web"')),
        ),
    ),
    _one("shutdown", 'mkdir "$P/items/new"', f'kill -TERM "$D"; {_ENDED}'),
    _one(
        "rollback and delete",
        _ROLLBACK,
        'mv "$P/items/other" "$P/items/shop"',
        'rmdir "$P/items/shop"',
        prepare=_KEPT,
    ),
    _recovery('mkdir "$P/items/new"', at=4),
    _recovery('mv "$P/items/web" "$P/items/shop"', at=5),
    _recovery('rmdir "$P/items/web"', at=4),
)

OPERATIONS: Sequence[Operation] = (
    *_POOL_OPERATIONS,
    *_ITEM_OPERATIONS,
    *_SNAPSHOT_OPERATIONS,
    *_SEQUENCES,
)
