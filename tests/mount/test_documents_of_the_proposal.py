"""The documents of libvirt's proposal of 2016, as printed there but with their broken tags closed."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from mount.control import ControlTree, last_error, refused, request, value
from support.needs import needs_root
from support.shell import Shell, sh

pytestmark = [needs_root, pytest.mark.required]

VOLUME = """\
<fspool type = 'volume'>
   <name>fspool</name>
   <uuid>cb07b799-8e03-485c-aaa0-7c88f60b37b0</uuid>
   <allocation>0</allocation>
   <capacity>0</capacity>
   <source>
     <pool name='pool name'/>
     <volume name='volume name'/>
     <format type = 'ext4'/> (ext4, zfs - depending on type of volume that is used as a backend).
   </source>
   <target>
     <path>/path/to/fspool</path>
     <permissions>
       <mode>0777</mode>
       <owner>0</owner>
       <group>0</group>
     </permissions>
   </target>
</fspool>
"""

DIRECTORY = """\
<fspool type = 'dir'>
   <name>fspool</name>
   <uuid>cb07b799-8e03-485c-aaa0-7c88f60b37b0</uuid>
   <target>
     <path>/path/to/fspool/root</path>
     <permissions>
       <mode>0777</mode>
       <owner>0</owner>
       <group>0</group>
     </permissions>
   </target>
</fspool>
"""

NETWORK = """\
<fspool type='network'>
   <name>fspool</name>
   <uuid>b27a72b5-a92e-4e58-a172-a80ba73b30fe</uuid>
   <source>
     <host name='X.X.X.X'/>  - if the pool is not on the host
     <dir path='some/directory/exposed/to/our/host'/>
   </source>
   <target>
     <path>/fspool</path>
   </target>
</fspool>
"""

ITEM = """\
<fs>
   <name>item</name>
   <allocation>0</allocation>
   <capacity>0</capacity>
   <source>fspool='name'</source>
   <target>
     <path>/fspool</path>
   </target>
   <permissions>
     <mode>0777</mode>
     <owner>0</owner>
     <group>0</group>
     <cgroups> Limits</cgroups>
   </permissions>
</fs>
"""

UUIDS = {
    VOLUME: "cb07b799-8e03-485c-aaa0-7c88f60b37b0",
    DIRECTORY: "cb07b799-8e03-485c-aaa0-7c88f60b37b0",
    NETWORK: "b27a72b5-a92e-4e58-a172-a80ba73b30fe",
}


@pytest.mark.parametrize("document", UUIDS, ids=["volume", "dir", "network"])
def test_a_proposed_pool_is_defined_by_a_line_of_shell(
    tree: ControlTree, document: str, shell: Shell
) -> None:
    sh('echo "$1" > "$2"', document, tree.define, shell=shell)
    pool = tree.pools / "fspool"
    assert value(pool / "uuid") == UUIDS[document]
    assert value(pool / "status") == "inactive"
    assert stat.S_IMODE((pool / "items").stat().st_mode) == (0o755 if document is NETWORK else 0o777)
    pool.rmdir()


def test_a_network_pool_with_a_format_names_it_when_it_lacks_a_backend(tree: ControlTree) -> None:
    request(tree.define, NETWORK.replace("</source>", "<format type='afs'/></source>"))
    pool = tree.pools / "fspool"
    with refused(errno.EOPNOTSUPP):
        request(pool / "status", "start")
    assert "'network'" in last_error(pool)
    assert "'afs'" in last_error(pool)
    pool.rmdir()


def test_the_proposed_directory_pool_and_item_live_a_whole_life(own_tree: ControlTree) -> None:
    root = own_tree.daemon.storage / "fspool" / "root"
    request(own_tree.define, DIRECTORY.replace("/path/to/fspool/root", str(root)))
    request(own_tree.define, DIRECTORY.replace("/path/to/fspool/root", str(root)))  # the same again
    target = f"<target><path>{own_tree.daemon.storage}/name</path></target>"
    request(own_tree.define, f"<fspool type='dir'><name>name</name>{target}</fspool>")
    for name in ("fspool", "name"):
        request(own_tree.pools / name / "status", "build")
        request(own_tree.pools / name / "status", "start")
    assert root.is_dir()
    request(own_tree.define, ITEM)
    item = own_tree.pools / "name" / "items" / "item"
    assert value(item / "status") == "ready"
    assert value(item / "capacity") == "none"
    assert os.readlink(item / "data") == f"{own_tree.daemon.storage}/name/fspool"
    data = (own_tree.daemon.storage / "name" / "fspool").stat()
    assert (stat.S_IMODE(data.st_mode), data.st_uid, data.st_gid) == (0o777, 0, 0)
    item.rmdir()
    for name in ("fspool", "name"):
        request(own_tree.pools / name / "status", "stop")
        (own_tree.pools / name).rmdir()
    assert os.listdir(own_tree.pools) == []


@pytest.mark.parametrize("root", ["fs", "item", "fsitem"])
def test_an_item_document_may_have_any_of_its_three_names(tree: ControlTree, root: str) -> None:
    pool = tree.active_pool()
    document = ITEM.replace("<fs>", f"<{root}>").replace("</fs>", f"</{root}>")
    request(tree.define, document.replace("'name'", f"'{pool.name}'"))
    assert os.listdir(pool / "items") == ["item"]


def test_an_item_of_an_unknown_pool_is_refused(tree: ControlTree) -> None:
    with refused(errno.ENOENT):
        request(tree.define, ITEM.replace("'name'", "'nowhere'"))
    assert "nowhere" in last_error(tree.mount)


def test_an_item_that_names_no_pool_is_refused(tree: ControlTree) -> None:
    with refused(errno.EINVAL):
        request(tree.define, "<fs><name>item</name></fs>")
    assert "fspool" in last_error(tree.mount)


def test_an_item_of_an_inactive_pool_is_refused(tree: ControlTree) -> None:
    pool = tree.defined_pool()
    with refused(errno.ENOMEDIUM):
        request(tree.define, ITEM.replace("'name'", f"'{pool.name}'"))
    assert "start" in last_error(pool)


def test_what_a_proposed_pool_prints_defines_it_again(tree: ControlTree) -> None:
    for document in UUIDS:
        request(tree.define, document)
        pool = tree.pools / "fspool"
        printed = (pool / "config.xml").read_text()
        request(pool / "config.xml", printed)
        pool.rmdir()
        request(tree.define, printed)
        assert (pool / "config.xml").read_text() == printed
        pool.rmdir()
