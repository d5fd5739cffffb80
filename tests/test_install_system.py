"""`scripts/install-system`: what it puts where, twice, and takes away again."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from support.needs import needs_program
from support.shell import run

PROJECT = Path(__file__).parents[1]

pytestmark = needs_program("bash", "install")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the script uses, with an environment that runs this Python."""
    made = tmp_path / "checkout"
    shutil.copytree(PROJECT / "fspoolfs", made / "fspoolfs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PROJECT / "scripts", made / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    programs = made / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("fspoolfs", "mount.fspoolfs"):
        (programs / name).touch(mode=0o755)
    (programs / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (programs / "python").chmod(0o755)
    return made


def contents(place: Path) -> dict[str, str]:
    """Files and links below a directory, with where they lead or how large they are."""
    return {
        str(path.relative_to(place)): str(path.readlink()) if path.is_symlink() else str(path.stat().st_size)
        for path in sorted(place.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def test_all_is_in_its_place_and_goes_again(checkout: Path, tmp_path: Path) -> None:
    script, place = checkout / "scripts" / "install-system", tmp_path / "system"
    run(script, env={"DESTDIR": str(place)})
    first = contents(place)
    assert first["usr/local/bin/fspoolfs"] == str(checkout / ".venv/bin/fspoolfs")
    assert first["usr/sbin/mount.fspoolfs"] == str(checkout / ".venv/bin/mount.fspoolfs")
    assert first["usr/sbin/mount.fuse.fspoolfs"] == "mount.fspoolfs"
    assert {name for name in first if name.startswith(("etc", "usr/local/share"))} == {
        "etc/systemd/system/fspoolfs-items.service",
        "etc/systemd/system/fspoolfs.service",
        "usr/local/share/man/man1/fspoolfs.1",
        "usr/local/share/man/man5/fspoolfs-xml.5",
        "usr/local/share/man/man7/fspoolfs-tree.7",
    }
    run(script, env={"DESTDIR": str(place)})
    assert contents(place) == first
    run(script, "--remove", env={"DESTDIR": str(place)})
    assert contents(place) == {}


def test_without_an_environment_nothing_is_installed(checkout: Path, tmp_path: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    done = run(
        checkout / "scripts" / "install-system", env={"DESTDIR": str(tmp_path / "system")}, check=False
    )
    assert done.returncode == 1
    assert "run scripts/install first" in done.stderr
    assert not (tmp_path / "system").exists()


def test_a_wrong_command_line_is_told_apart(checkout: Path) -> None:
    assert run(checkout / "scripts" / "install-system", "--what", check=False).returncode == 2
