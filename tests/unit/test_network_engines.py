"""What engines tell the programs that mount, how they take refusals, and what they refuse themselves."""

from __future__ import annotations

import errno
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from fspoolfs.backends.network import cephfs, exports
from fspoolfs.backends.network.cifs import Cifs
from fspoolfs.backends.network.engine import Engine
from fspoolfs.backends.network.glusterfs import GlusterFs
from fspoolfs.backends.network.moosefs import MooseFs
from fspoolfs.backends.network.nfs import Nfs
from fspoolfs.errors import FspoolError, InvalidError
from fspoolfs.model.definitions import Auth, Host, PoolDefinition, PoolSource, PoolType
from fspoolfs.progress import Progress
from fspoolfs.system import command
from fspoolfs.system.mounts import Mount

PLACE = "/run/fspoolfs/network/hold"
#: Writes down how it was called, says what it is to say, and ends so.
_PROGRAM = """#!/bin/sh
printf '%s\\n' "$0" "$@" >{called}
cat {says} >&2
exit $(cat {status})
"""


def pool(
    directory: str = "/exports/a b", options: str = "", *hosts: Host, auth: Auth | None = None
) -> PoolDefinition:
    source = PoolSource(
        hosts=hosts or (Host(name="10.0.0.7"),), directory=directory, options=options or None, auth=auth
    )
    return PoolDefinition(
        name="tank", type=PoolType.NETWORK, uuid=UUID(int=1), target="/srv/tank", source=source
    )


class Programs:
    """Programs of the names that engines run, which mount nothing."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for name in ("mount", "mount.nfs", "mount.cifs", "mfsmount", "glusterfs"):
            program = place / name
            files = {what: place / f"{what}.txt" for what in ("called", "says", "status")}
            program.write_text(_PROGRAM.format(**files))
            program.chmod(0o755)
        self.ends(0, "")

    def ends(self, status: int, says: str) -> None:
        (self.place / "status.txt").write_text(str(status))
        (self.place / "says.txt").write_text(says)

    def called(self) -> list[str]:
        program, *words = (self.place / "called.txt").read_text().splitlines()
        return [Path(program).name, *words]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    monkeypatch.setattr(command, "DIRECTORIES", (str(tmp_path),))
    monkeypatch.setattr(GlusterFs, "_comes_up", lambda engine, definition, place: True)
    return Programs(tmp_path)


def mounted(programs: Programs, engine: Engine, definition: PoolDefinition) -> list[str]:
    engine.mount(definition, PLACE, Progress())
    return programs.called()


def test_nfs_is_mounted_once_without_trying_for_long(programs: Programs) -> None:
    assert mounted(programs, Nfs(), pool(options="vers=4.2,soft,timeo=20")) == [
        *("mount.nfs", "10.0.0.7:/exports/a b", PLACE, "-o"),
        "nosuid,nodev,retry=0,nosharecache,vers=4.2,soft,timeo=20",
    ]
    words = mounted(programs, Nfs(), pool("/x", "", Host(name="fd00::7", port=2050)))
    assert words == ["mount.nfs", "[fd00::7]:/x", PLACE, "-o", "nosuid,nodev,retry=0,nosharecache,port=2050"]


def test_cifs_reads_its_credentials_itself(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "secret", lambda definition: "/etc/fspoolfs/keys/share")
    auth = Auth(type="cifs", username="web", secret="/etc/fspoolfs/keys/share")
    assert mounted(programs, Cifs(), pool("/share/dir", "vers=3.1.1", auth=auth)) == [
        *("mount.cifs", "//10.0.0.7/share/dir", PLACE, "-o"),
        "nosuid,nodev,port=445,vers=3.1.1,credentials=/etc/fspoolfs/keys/share,username=web",
    ]
    monkeypatch.setattr(exports, "secret", lambda definition: None)
    assert mounted(programs, Cifs(), pool("/share"))[-1] == "nosuid,nodev,port=445,guest"


def test_glusterfs_is_told_all_its_servers(programs: Programs) -> None:
    hosts = (Host(name="one"), Host(name="two"))
    assert mounted(programs, GlusterFs(), pool("/vol/in/side", "ro,entry-timeout=0", *hosts)) == [
        *("glusterfs", "--process-name", "fuse"),
        f"--log-file=/var/log/glusterfs/fspoolfs-{UUID(int=1)}.log",
        *("--volfile-server=one", "--volfile-server=two", "--volfile-server-port=24007"),
        *("--volfile-id=/vol", "--subdir-mount=/in/side", "--read-only", "--entry-timeout=0"),
        *("--fuse-mountopts=nosuid,nodev", PLACE),
    ]
    assert "--subdir-mount" not in " ".join(mounted(programs, GlusterFs(), pool("/vol")))


def test_moosefs_is_told_the_password_where_nobody_reads_it(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("letmein\n")
    monkeypatch.setattr(exports, "secret", lambda definition: str(secret))
    program, dash_o, options, what, *rest = mounted(programs, MooseFs(), pool("/a,b", "mfstimeout=9"))
    assert (program, dash_o, what, rest) == ("mfsmount", "-o", "10.0.0.7:9421:/a,b", ["-n", PLACE])
    assert "fsname=mfs#10.0.0.7:9421/a%2Cb" in options.split(",")
    assert "mfstimeout=9" in options.split(",")
    assert "mfscfgfile=/proc/self/fd/" in options
    assert "letmein" not in options
    secret.write_text("\n")
    with pytest.raises(InvalidError, match="no password"):
        MooseFs().mount(pool(), PLACE, Progress())


@pytest.fixture
def monitors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Monitors at any host, known by their ports, and a kernel that has a client for them."""
    said = {3300: b"ceph v2\n", 4400: b"ceph v2\n", 6789: b"ceph v027"}
    monkeypatch.setattr(exports, "banner", lambda name, port, **limits: said.get(port, b""))
    monkeypatch.setattr(cephfs, "_why_no_kernel", lambda: "")
    monkeypatch.setattr(cephfs, "_PRIVATE", str(tmp_path / "private"))


@pytest.mark.parametrize(
    ("hosts", "mode"),
    [
        ([Host(name="10.0.0.7", port=3300)], ["ms_mode=prefer-crc"]),
        ([Host(name="10.0.0.7", port=4400)], ["ms_mode=prefer-crc"]),
        ([Host(name="10.0.0.7", port=6789)], []),
        ([Host(name="10.0.0.7")], []),
        ([Host(name="10.0.0.7", port=4400), Host(name="10.0.0.8", port=9)], ["ms_mode=prefer-crc"]),
        ([Host(name="10.0.0.7", port=4400), Host(name="10.0.0.8")], []),
    ],
)
@pytest.mark.usefixtures("monitors")
def test_the_kernels_client_of_cephfs_is_told_which_protocol_its_monitors_speak(
    programs: Programs, tmp_path: Path, hosts: list[Host], mode: list[str]
) -> None:
    program, *words = mounted(programs, cephfs.Cephfs(), pool("/x", "client=kernel,noatime", *hosts))
    monitors = ",".join(f"{host.name}:{host.port}" if host.port else host.name for host in hosts)
    conf = f"conf={tmp_path}/private/{UUID(int=1)}/ceph.conf"
    options = ",".join(["nosuid,nodev,name=admin", conf, "mount_timeout=40,noatime", *mode])
    assert [program, *words] == ["mount", "-t", "ceph", "-o", options, f"{monitors}:/x", PLACE]


@pytest.mark.usefixtures("monitors")
def test_what_the_kernels_client_of_cephfs_does_not_tell_apart_is_told_as_that(programs: Programs) -> None:
    programs.ends(32, "mount error: no mds server is up or the cluster is laggy")
    with pytest.raises(
        FspoolError, match=r"as client\.admin with the secret.*no such file system.*dmesg"
    ) as told:
        cephfs.Cephfs().mount(pool("/x", "client=kernel"), PLACE, Progress())
    assert told.value.errno == errno.ETIMEDOUT


@pytest.mark.parametrize(
    ("engine", "says", "number"),
    [
        (
            Nfs(),
            "mount.nfs: mounting 10.0.0.7:/x failed, reason given by server: No such file or directory",
            2,
        ),
        (Nfs(), "mount.nfs: access denied by server while mounting 10.0.0.7:/x", errno.EACCES),
        (Nfs(), "mount.nfs: Connection refused", errno.ETIMEDOUT),
        (Nfs(), "mount.nfs: Failed to resolve server nix: Name or service not known", errno.ETIMEDOUT),
        (Nfs(), "mount.nfs: an incorrect mount option was specified", errno.EIO),
        (Cifs(), "mount error(13): Permission denied\nRefer to the mount.cifs(8) manual page", errno.EACCES),
        (Cifs(), "mount error(2): No such file or directory", errno.ENOENT),
        (Cifs(), "mount error(111): could not connect to 10.0.0.7", errno.ETIMEDOUT),
        (MooseFs(), "mfsmaster register error: No such file or directory", errno.ENOENT),
        (MooseFs(), "mfsmaster register error: Not a directory", errno.ENOTDIR),
        (MooseFs(), "mfsmaster register error: Incorrect password", errno.EACCES),
        (MooseFs(), 'can\'t connect to mfsmaster ("10.0.0.7":"9421")', errno.ETIMEDOUT),
        (GlusterFs(), "", errno.ETIMEDOUT),
    ],
)
def test_refusals_are_told_apart_and_repeated(
    programs: Programs, engine: Engine, says: str, number: int
) -> None:
    programs.ends(1, says)
    with pytest.raises(FspoolError, match=r"pool tank: .*10\.0\.0\.7:/x") as caught:
        engine.mount(pool("/x"), PLACE, Progress())
    assert caught.value.errno == number
    assert says.partition("\n")[0] in str(caught.value) or number == errno.ENOTDIR


def test_what_is_only_chatter_is_not_repeated(programs: Programs) -> None:
    programs.ends(1, "can't set open file limit to 100000\nopen file limit set to: 12500\nsomething else\n")
    with pytest.raises(FspoolError, match=r"cannot be mounted: something else$"):
        MooseFs().mount(pool(), PLACE, Progress())


@pytest.mark.parametrize(
    ("engine", "definition", "why"),
    [
        (Nfs(), pool("/x", "vers=2"), "no version of NFS"),
        (Nfs(), pool("/x", "", Host(name="a"), Host(name="b")), "name one"),
        (Nfs(), pool("/x", auth=Auth(type="nfs", username="x")), "leave <auth> out"),
        (Cifs(), pool("/"), "no share is named"),
        (Cifs(), pool("/share", "vers=1.0"), "no version of SMB"),
        (Cifs(), pool("/share,x"), "no comma"),
        (Cifs(), pool("/share", auth=Auth(type="cifs", username="a,b")), "no comma"),
        (Cifs(), pool("/share", "", Host(name="a"), Host(name="b")), "name one"),
        (GlusterFs(), pool("/"), "no volume is named"),
        (GlusterFs(), pool("/v", "", Host(name="a"), Host(name="b", port=1)), "one port"),
        (GlusterFs(), pool("/v", auth=Auth(type="glusterfs", username="x")), "leave <auth> out"),
    ],
)
def test_what_can_never_be_mounted_is_refused(engine: Engine, definition: PoolDefinition, why: str) -> None:
    with pytest.raises(InvalidError, match=f"pool tank: .*{why}"):
        engine.check(definition)


@pytest.mark.parametrize("engine", [Nfs(), Cifs(), GlusterFs(), MooseFs()])
def test_an_engine_knows_its_own_mounts_and_its_identity_is_that_of_the_export(engine: Engine) -> None:
    one, other = pool("/vol/one"), pool("/vol/other")
    sources = {
        "nfs": "10.0.0.7:/vol/one",
        "cifs": "//10.0.0.7/vol/one",
        "glusterfs": "10.0.0.7:/vol/one",
        "moosefs": "mfs#10.0.0.7:9421/vol/one",
    }
    mount = Mount(
        mount_id=1,
        parent_id=0,
        device="0:1",
        root="/",
        target="/srv/tank",
        options="rw",
        fs_type=next(iter(engine.fs_types)),
        source=sources[engine.name],
    )
    assert engine.shows(one, mount)
    assert not engine.shows(other, mount)
    assert engine.identity(one) == engine.identity(pool("/vol/one", "ro"))
    assert engine.identity(one) != engine.identity(other)


@pytest.mark.parametrize("engine", [Nfs(), Cifs(), GlusterFs(), MooseFs()])
def test_no_option_gives_away_locks_between_hosts_or_what_is_secret(engine: Engine) -> None:
    names = {option.rstrip("=") for option in engine.options}
    assert not names & {"nolock", "local_lock", "nobrl", "mfsnobsdlocks", "mfsnoposixlocks"}
    assert not names & {"password", "pass", "credentials", "mfspassword", "mfsmd5pass", "mfspassfile"}


# Who answers.


@contextmanager
def serving(answer: Callable[[bytes], bytes]) -> Iterator[int]:
    """The port of a server on this host that answers the first that each client sends."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    line, _ = server.accept()
                except OSError:  # closed
                    return
                with line:
                    line.sendall(answer(line.recv(4096)))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def nfs_reply(call: bytes) -> bytes:
    reply = call[4:8] + struct.pack(">5I", 1, 0, 0, 0, 0)
    return struct.pack(">I", 1 << 31 | len(reply)) + reply


def smb_reply(call: bytes) -> bytes:
    assert call[4:8] == b"\xfeSMB"
    return struct.pack(">I", 4) + b"\xfeSMB"


def moosefs_reply(call: bytes) -> bytes:
    assert call == struct.pack(">II", 10, 0)
    return struct.pack(">II", 11, 11) + struct.pack(">I", 0x300EA) + b"3.0.117"


@pytest.mark.parametrize(
    ("engine", "answer"), [(Nfs(), nfs_reply), (Cifs(), smb_reply), (MooseFs(), moosefs_reply)]
)
def test_servers_are_known_by_how_they_answer(engine: Engine, answer: Callable[[bytes], bytes]) -> None:
    with serving(answer) as port:
        assert engine.answers(pool("/x", "", Host(name="127.0.0.1", port=port)))
    with serving(lambda call: b"SSH-2.0-OpenSSH_9.2\r\n" + bytes(40)) as port:
        assert not engine.answers(pool("/x", "", Host(name="127.0.0.1", port=port)))
    with serving(lambda call: b"") as port:
        assert not engine.answers(pool("/x", "", Host(name="127.0.0.1", port=port)))
    assert not engine.answers(pool("/x", "", Host(name="127.0.0.1", port=port)))
