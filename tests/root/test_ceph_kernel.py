"""CephFS by the kernel's own client: the cluster runs here, the kernel in a guest on the same network."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest

from root.ceph_site import LONG, agree, document, items, manages, open_site
from root.working import Work, await_work, working
from support import ceph
from support.guest import MISSING, SCRIPT
from support.network import Host
from support.shell import run
from support.wait import eventually

pytestmark = [*ceph.MARKS, pytest.mark.vm, pytest.mark.long]

ADDRESS = "10.77.0.1"
#: Seconds for the guest with all of its tests.
LIMIT = 1500
#: Seconds in which a guest has booted, and its daemon has the pool active.
_READY = 120.0

#: A host that makes and renames items until it dies, and says what it was told.
_WORKER = """
base=/run/worker
mkdir -p $base/mount $base/state $base/storage
where="--state-dir $base/state --storage-dir $base/storage"
.venv/bin/python -m fspoolfs mount $base/mount --foreground $where 2>&1 &
until [ -e $base/mount/define ]; do sleep 0.1; done
echo "$0" > $base/mount/define
pool=$base/mount/pools/tank
echo start build > $pool/status
until [ "$(cat $pool/status)" = active ]; do
    cat $pool/last_error
    sleep 1
done
grep -q "/run/worker/target .* - ceph " /proc/self/mountinfo || exit
cd $pool/items
n=0
while n=$((n + 1)); do
    mkdir a$n && echo "made a$n"
    mv a$n b$n && echo "renamed b$n"
done
"""


@pytest.mark.timeout(LIMIT + 120)
def test_everything_succeeds_by_the_kernels_client(run_directory: Path) -> None:
    server = Host()
    try:
        server.add(ADDRESS)
        within = ["nsenter", f"--net={server.namespace}", "--"]
        with ceph.running(run_directory / "ceph-kernel", address=ADDRESS, within=within) as cluster:
            with server.entered():
                cluster.confine("h1", "/tank")
                cluster.keep("stranger", ceph.new_key())
            result = run(
                *within,
                *(SCRIPT, "--network", "--timeout", str(LIMIT), "--"),
                *(".venv/bin/python", "-m", "pytest", "-c", "tests/vm/guest.ini", "--rootdir=."),
                *("--confcutdir=tests/vm", "-m", "long", "tests/vm/test_ceph_kernel.py"),
                env={**os.environ, ceph.KERNEL_CLIENT: f"{ADDRESS}:{cluster.base}"},
                timeout=LIMIT + 60,
                check=False,
            )
    finally:
        server.close()
    if result.returncode == MISSING:
        pytest.skip(result.stderr.strip())
    print(result.stdout, result.stderr)  # pytest shows it with a failed test
    assert result.returncode == 0
    assert " skipped" not in result.stdout


@pytest.mark.timeout(900)
def test_a_host_that_dies_with_the_kernels_client_is_taken_over(run_directory: Path) -> None:
    with ExitStack() as stack:
        directory = run_directory / "ceph-dying"
        directory.mkdir()
        stack.callback(run, "rm", "-r", "-f", "--one-file-system", "--", directory)
        site = open_site(stack, directory, others=1)
        one = site.pools[0]
        mine = Work(one, "mine-", patient=True)
        guest = stack.enter_context(
            subprocess.Popen(
                [
                    *("nsenter", f"--net={site.net.hosts[3].namespace}", "--"),
                    *(SCRIPT, "--network", "--timeout", "600", "--"),
                    *("bash", "-c", _WORKER, document("/run/worker/target", site.secret)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        stack.callback(guest.kill)
        assert guest.stdout is not None
        said: list[str] = []
        read_until(guest.stdout, said, renamed=1)
        with working(mine):
            read_until(guest.stdout, said, renamed=20)
            await_work(mine, more_than=8, timeout=LONG)
            guest.terminate()  # which kills its qemu
        said += guest.stdout.readlines()
        print("".join(said))
        made, renamed = told(said, "made"), told(said, "renamed")
        assert len(renamed) >= 20
        # Servers answer nobody in some directories until they let go the client that died.
        eventually(lambda: "lost" in states_of(one), what="the host is lost", timeout=LONG)
        eventually(lambda: manages(one), what="the survivor manages the pool", timeout=LONG)
        number = len(renamed) + 1
        # What it was doing when it died may be done or not.
        doubtful = {f"a{number}", f"b{number}"} | mine.doubtful
        sure = (renamed | mine.there) - doubtful
        eventually(
            lambda: sure <= set(items(one)) <= sure | doubtful | {"after"},
            what="nothing is lost, nothing doubled",
            timeout=LONG,
        )
        if len(made) == number:
            assert {f"a{number}", f"b{number}"} & set(items(one))
        agree(site)
        assert sorted(states_of(one)) == ["alive", "here", "lost"]


def states_of(pool: Path) -> list[str]:
    """How the hosts stand that have a pool active; none where the storage does not answer."""
    try:
        lines = (pool / "hosts").read_text().splitlines()
    except TimeoutError:
        return []
    return [line.split()[-1] for line in lines]


def read_until(output: IO[str], said: list[str], *, renamed: int) -> None:
    """Add to what was said until so many items have been renamed, or nothing more is said."""
    for line in output:
        said.append(line)
        if len(told(said, "renamed")) >= renamed:
            return


def told(lines: list[str], what: str) -> set[str]:
    """The items of which it was said."""
    return {line.split()[1] for line in lines if line.startswith(f"{what} ")}
