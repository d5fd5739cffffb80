"""fspoolfs-xml(5), from the grammar of documents. An element without a sentence here is an error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files

from lxml import etree

from manuals.roff import Page

_RNG = "{http://relaxng.org/ns/structure/1.0}"
#: What may hold everything, in any depth.
_OPEN = "anything"

_EXAMPLE = """\
<fspool type='volume'>
  <name>tank</name>
  <capacity unit='GiB'>10</capacity>
  <source><pool name='images'/><volume name='vol1'/><format type='ext4'/></source>
</fspool>

<fs>
  <name>web</name>
  <capacity unit='GiB'>5</capacity>
  <source fspool='tank'/>
</fs>"""

#: Path of an element, or its last name where it means the same everywhere → what it is.
_SENTENCES: Mapping[str, str] = {
    "fspool": "A pool.",
    "fspool@type": "dir: a directory of the host. volume: an image, a disk or a logical volume. "
    "network: an export.",
    "fs": "An item of a pool; also called item or fsitem.",
    "name": "1 to 200 bytes of UTF-8 without slashes and control characters, not beginning with a dot "
    "or a dash.",
    "uuid": "Chosen where none is given, and never changed.",
    "capacity": "The most that it may hold.",
    "capacity@unit": "bytes, K or KiB (1024), KB (1000), and so on up to E; bytes where there is none.",
    "capacity@soft": "A size, or a part such as 80%, at which an event tells that the item holds so much.",
    "files": "The most files and directories that an item may hold.",
    "allocation": "Is only reported, and ignored where it is given back.",
    "allocation@unit": "As that of capacity.",
    "available": "Is only reported, and ignored where it is given back.",
    "available@unit": "As that of capacity.",
    "metadata": "Anything; kept as it is.",
    "defaults": "What holds for items whose documents leave it out.",
    "trash": "What becomes of deleted items.",
    "trash@retention": "How long they are kept, such as 24h; none purges them at once.",
    "fspool/quota": "What all items, or those of one user or group, may come to hold together, in bytes.",
    "quota@user": "A user's number.",
    "quota@group": "A group's number.",
    "quota@unit": "As that of capacity.",
    "quota@items": "The most items, those in the trash included.",
    "idmap": "Ranges of owners that appear as others at the link idmapped.",
    "uid": "A range of users.",
    "gid": "A range of groups.",
    "uid@start": "The first one, as the item has it.",
    "uid@target": "As whom it appears.",
    "uid@count": "How many follow one another.",
    "gid@start": "The first one, as the item has it.",
    "gid@target": "As which it appears.",
    "gid@count": "How many follow one another.",
    "fspool/target": "Where the pool's root is.",
    "fs/target": "Where the item is.",
    "fspool/target/path": "The absolute path of the root.",
    "fs/target/path": "The path of the item from the pool's root; /NAME where there is none.",
    "permissions": "Stands in target or beside it.",
    "mode": "Octal.",
    "owner": "A user's number.",
    "group": "A group's number.",
    "fspool/source": "Where the pool's storage is.",
    "fspool/source/pool": "Where a volume comes from: images, a volume group or a storage pool of libvirt.",
    "pool@name": "Its name.",
    "pool@provider": "images, lvm or libvirt.",
    "fspool/source/volume": "The volume.",
    "volume@name": "Its name.",
    "device": "A block device of the host.",
    "device@path": "Its absolute path.",
    "host": "A server.",
    "host@name": "Its name or address.",
    "host@port": "Where it listens, if not where such servers do.",
    "dir": "What is mounted.",
    "dir@path": "As the server names it.",
    "format": "The kind of file system.",
    "format@type": "Of a volume ext4, xfs, btrfs or zfs; of the network nfs, cephfs, sshfs, moosefs, "
    "cifs or glusterfs.",
    "options": "Mount options, besides nosuid and nodev, which are always there.",
    "auth": "How the server knows who asks.",
    "auth@type": "As the format wants it.",
    "auth@username": "Whom the server is to see.",
    "secret": "What only the server and this host know.",
    "hosts": "The keys of servers, as known_hosts has them.",
    "config": "The configuration of the client.",
    "secret@file": "A file that only root reads.",
    "hosts@file": "A file of the host.",
    "config@file": "A file of the host.",
    "fs/source": "The pool, and what the item is a clone of.",
    "source@fspool": "The pool's name.",
    "source@fs": "The item of which this one is a clone.",
    "source@snapshot": "The snapshot of that item.",
    "cgroups": "Limits of those who use the item, by the names of cgroup v2.",
    "io.max": "Bytes and requests per second.",
    "io.weight": "A share of the disk.",
    "io.latency": "How long requests may take.",
    "memory.max": "The most memory.",
    "memory.high": "Memory from which on its users are slowed down.",
    "pids.max": "The most processes.",
    "cpu.max": "The most time of processors.",
}


def page() -> Page:
    made = Page("fspoolfs-xml", 5, "documents that define pools and items of fspoolfs")
    made.heading("DESCRIPTION")
    made.paragraph(
        "Documents are written into define or config.xml of the control tree, see fspoolfs-tree(7), or "
        "given to the "
        "commands of fspoolfs(1). They follow libvirt's conventions, and what they may hold is in a "
        "RELAX NG grammar. "
        "Unknown elements are refused with their line; document types, entities and XInclude are, too."
    )
    made.heading("EXAMPLE")
    made.verbatim(_EXAMPLE)
    made.heading("ELEMENTS")
    for title, define in (("Pools", "pool"), ("Items", "item")):
        made.subheading(title)
        for path in dict.fromkeys(_paths(define)):
            made.entry(_shown(path), _sentence(path))
    made.see_also(("fspoolfs(1)", "fspoolfs-tree(7)"))
    return made


def grammar() -> etree._Element:
    return etree.fromstring(files("fspoolfs").joinpath("model/fspool.rng").read_bytes())


def _paths(define: str) -> Iterator[str]:
    """The paths of all elements and attributes below a definition: "fspool/source/host", "…/host@name"."""
    defines = {one.get("name"): one for one in grammar().iter(f"{_RNG}define")}

    def walk(node: etree._Element, path: str) -> Iterator[str]:
        for child in node:
            if child.tag == f"{_RNG}element":
                # Of several names the first stands for all.
                named = child.get("name") or child.findtext(f".//{_RNG}name") or ""
                inner = f"{path}/{named}" if path else named
                yield inner
                yield from walk(child, inner)
            elif child.tag == f"{_RNG}attribute":
                yield f"{path}@{child.get('name')}"
            elif child.tag == f"{_RNG}ref":
                if child.get("name") != _OPEN:
                    yield from walk(defines[child.get("name")], path)
            elif isinstance(child.tag, str):
                yield from walk(child, path)

    return walk(defines[define], "")


def _shown(path: str) -> str:
    element, at, attribute = path.rpartition("@")
    return f"{element} {attribute}=" if at else path


def _sentence(path: str) -> str:
    last = path.rpartition("/")[2]
    found = _SENTENCES.get(path) or _SENTENCES.get(last)
    if found is None:
        raise LookupError(f"no sentence tells what {path} is; add one to {__name__}")
    return found
