"""fspoolfs-tree(7), from the tables of the tree's directories. A row without a sentence is an error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fspoolfs.model.states import ItemState, PoolState, PoolVerb
from fspoolfs.tree.item import ItemDirectory
from fspoolfs.tree.node import Directory, File, Row
from fspoolfs.tree.pool import PoolDirectory
from fspoolfs.tree.root import Root
from fspoolfs.tree.snapshots import SnapshotDirectory
from fspoolfs.tree.trash import TrashEntryDirectory
from manuals.roff import Page

_Sentences = Mapping[str, str]

#: Sentences that are true of a file wherever it is.
_COMMON: _Sentences = {
    "config.xml": "The definition, see fspoolfs-xml(5). Writing one redefines.",
    "status": "The state, and behind it how far the job is that runs. Takes a verb; poll(2) tells of "
    "changes.",
    "job": "Follows the running job, a line a second, to its end. Takes cancel.",
    "info": "What is known, as key: value lines for a person.",
    "uuid": "Never changes.",
    "last_error": "The last request on this object that failed, in full words.",
    "allocation": "Bytes that are in use.",
    "available": "Bytes that are left.",
}
#: Kind of directory → where it is, what can be made and removed there, and what its own files are.
KINDS: Mapping[type[Directory], tuple[str, str, _Sentences]] = {
    Root: (
        "/",
        "",
        {
            "define": "Takes the document of a pool or an item; an item is created, too.",
            "events": "Lines of JSON: the recent events, and then what comes. tail -f and poll(2) follow it.",
            "features": "Each kind of storage: whether this host can use it, or why not.",
            "last_error": "The last failed request that concerned no pool.",
            "metrics": "Numbers of pools, items and requests for Prometheus.",
            "version": "Of the daemon.",
        },
    ),
    PoolDirectory: (
        "/pools/POOL/",
        "mkdir defines a pool of type dir; rmdir forgets its definition and keeps all data.",
        {
            "pending.xml": "A definition that waits for the pool to be stopped; there only while one does.",
            "capacity": "Bytes. Takes a larger or smaller size where the pool can change its own.",
            "autostart": "1 if the pool is started at boot, else 0; takes either.",
            "features": "What this pool's storage can do, each no with its reason.",
            "listing": "All items with their numbers, a line of JSON each.",
            "hosts": "The hosts that have a shared pool active; there only in such pools.",
            "root": "Leads to the pool's directory.",
        },
    ),
    ItemDirectory: (
        "/pools/POOL/items/ITEM/",
        "mkdir creates an item, rmdir puts it into the trash, mv renames it.",
        {
            "capacity": "Bytes, or none. Takes a size such as 10G, 10GiB, 10GB, or none.",
            "users": "Who has it mounted, in any mount namespace: pid, command and mount point.",
            "cgroup": "The control group of those who use it, as /proc/PID/cgroup names it; there only with "
            "limits.",
            "cgroup.procs": "Who is in that group; takes the number of a process, 0 for whoever writes.",
            "idmapped": "Leads to the same files with mapped owners; there only with idmap.",
            "data": "Leads to the item's directory.",
        },
    ),
    SnapshotDirectory: (
        "/pools/POOL/items/ITEM/snapshots/SNAPSHOT/",
        "mkdir takes a snapshot, rmdir deletes it, mv renames it.",
        {
            "created": "When, as ISO 8601 writes it.",
            "data": "Leads to what the item held, read-only.",
        },
    ),
    TrashEntryDirectory: (
        "/pools/POOL/trash/ITEM/",
        "mv back into items/ undeletes, rmdir purges at once.",
        {},
    ),
}
#: What each verb of a pool's `status` does; define and undefine are no such verbs.
VERBS: Mapping[PoolVerb, str] = {
    PoolVerb.BUILD: "Makes the pool's directory, and its volume where that is missing; build overwrite "
    "erases.",
    PoolVerb.START: "Mounts the pool and finishes what was interrupted; start build builds it first.",
    PoolVerb.STOP: "Unmounts it; refused while an item is in use.",
    PoolVerb.DESTROY: "The same by force; data is kept.",
    PoolVerb.DELETE: "Undoes build, when nothing but what fspoolfs keeps for itself is left.",
    PoolVerb.REFRESH: "Looks again at what the storage holds.",
    PoolVerb.FENCE: "fence HOST: what another host had, which is off for good, is free.",
}


def page() -> Page:
    made = Page("fspoolfs-tree", 7, "the control tree of fspoolfs")
    made.heading("DESCRIPTION")
    made.paragraph(
        "fspoolfs mount mounts a tree of small text files, in which every pool and every item is a "
        "directory. One "
        "value stands in a file, with a newline at its end, and what a file prints it also takes. One "
        "write(2) is "
        "one request, and its errno the answer. r is read, w is written, -> is a symbolic link."
    )
    made.heading("FILES")
    for kind, (where, directory, sentences) in KINDS.items():
        made.subheading(where)
        if directory:
            made.paragraph(directory)
        for name, row in _rows(kind):
            made.entry(f"{name} ({_mode(row)})", _sentence(where, name, sentences))
    made.heading("STATES")
    made.paragraph(f"Of a pool: {', '.join(PoolState)}.")
    made.paragraph(f"Of an item: {', '.join(ItemState)}.")
    made.heading("VERBS")
    made.paragraph("A pool takes in status:")
    for verb, sentence in VERBS.items():
        made.entry(verb, sentence)
    made.paragraph("An item takes clone NEW [SNAPSHOT], rollback SNAPSHOT and measure.")
    made.paragraph("What takes longer than the grace time is answered with EINPROGRESS and goes on as a job.")
    made.see_also(("fspoolfs(1)", "fspoolfs-xml(5)"))
    return made


def _rows(kind: type[Directory]) -> Iterator[tuple[str, Row[Directory]]]:
    for name, (_, row) in kind.table.items():
        yield name, row


def _mode(row: Row[Directory]) -> str:
    if not isinstance(row, File):
        return "->"
    readable = "r" if row.show or row.ask or row.jobs or row.size else ""
    return f"{readable if row.name != 'define' else ''}{'w' if row.store else ''}"


def _sentence(where: str, name: str, sentences: _Sentences) -> str:
    found = sentences.get(name) or _COMMON.get(name)
    if found is None:
        raise LookupError(f"no sentence tells what {where}{name} is; add one to {__name__}")
    return found
