"""The README's tours, executed: every line of every `sh tour` block in one shell, in order, and the same
by commands, the `sh commands` blocks, on a pseudo-terminal.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.leftovers import beneath
from support.machine import is_mounted
from support.needs import needs_fuse, needs_root
from support.shell import run
from support.terminal import on_terminal
from support.wait import has_ended

pytestmark = [needs_root, needs_fuse, pytest.mark.required]

README = Path(__file__).parents[2] / "README.md"
#: The mount point that the README shows.
SHOWN = "/run/fspool"
#: The two tours: by plain files, and by commands.
KINDS = ("tour", "commands")
_HERE_DOCUMENT = re.compile(r"<<'?(\w+)'?")


def blocks(text: str, kind: str = "tour") -> list[str]:
    """The commands of a tour, block by block."""
    found = re.finditer(rf"^```sh {kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [match[1] for match in found]


def commands(block: str) -> Iterator[str]:
    """The commands of a block: a line each, with the here-document that it begins."""
    lines = iter(block.splitlines())
    for line in lines:
        command = [line]
        if found := _HERE_DOCUMENT.search(line):
            while command[-1] != found[1]:
                command.append(next(lines))
        if line.strip():
            yield "\n".join(command)


def script(text: str, kind: str = "tour") -> str:
    """A shell script that runs each command of the tour, and says which one did not do as it should.

    A command that begins with `!` must fail; bash's own `set -e` does not look at those.
    """
    parts = ["set -u"]
    for block in blocks(text, kind):
        for command in commands(block):
            must_fail = command.startswith("! ")
            expected = "-ne" if must_fail else "-eq"
            parts.append(
                f"{command.removeprefix('! ')}\nstatus=$?\n"
                f'[ "$status" {expected} 0 ] || '
                f"{{ printf 'status %d of: %s\\n' \"$status\" {shlex.quote(command)} >&2; exit 1; }}"
            )
    return "\n".join(parts)


class Place:
    """Where the tour is run: a mount point, a state and a storage of its own."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.mount = base / "fspool"
        self.state = base / "state"
        self.programs = base / "bin"
        self.programs.mkdir(parents=True)
        wrapper = self.programs / "fspoolfs"
        options = shlex.join(["--state-dir", str(self.state), "--storage-dir", str(base / "storage")])
        wrapper.write_text(
            "#!/bin/sh\n"
            'command=$1; shift; options=""\n'
            f'[ "$command" != mount ] || options={shlex.quote(options)}\n'
            f'exec {shlex.quote(sys.executable)} -m fspoolfs "$command" $options "$@"\n'
        )
        wrapper.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.programs}:/usr/sbin:/usr/bin:/sbin:/bin"}

    def run(self, text: str) -> str:
        result = run(
            "bash", "-c", script(text.replace(SHOWN, str(self.mount))),
            env=self.environment, cwd=README.parent, check=False,
        )  # fmt: skip
        assert result.returncode == 0, f"{result.stdout}{result.stderr}"
        return result.stdout

    def run_on_terminal(self, text: str) -> str:
        """The tour by commands, as a person sees it."""
        status, output = on_terminal(
            ["bash", "-c", script(text.replace(SHOWN, str(self.mount)), "commands")],
            env=self.environment,
            cwd=README.parent,
        )
        assert status == 0, output
        return output


@pytest.fixture
def place(run_directory: Path) -> Iterator[Place]:
    found = Place(run_directory / "tour")
    yield found
    for leftover in beneath(found.base):
        assert not leftover.remove()
    lock = found.state / "lock"
    if lock.exists() and lock.read_text():
        assert has_ended(int(lock.read_text()), timeout=20), "the tour's daemon has not ended"
    run("rm", "-r", "-f", "--one-file-system", "--", found.base)


@pytest.mark.parametrize("kind", KINDS)
def test_the_readme_has_a_tour(kind: str) -> None:
    found = blocks(README.read_text(), kind)
    assert len(found) >= 3
    assert f"fspoolfs mount {SHOWN}" in found[0]
    assert f"fspoolfs unmount {SHOWN}" in found[-1]


def test_every_line_of_the_tour_does_what_it_says(place: Place) -> None:
    output = place.run(README.read_text())
    assert "hello" in output
    assert not is_mounted(place.mount), "the tour unmounts what it mounts"
    log = (place.state / "fspoolfs.log").read_text()
    assert "ERROR" not in log
    assert "Traceback" not in log


def test_the_tour_by_commands_does_the_same(place: Place) -> None:
    """Every line of it, on a terminal; what is left is what the tour by files leaves."""
    output = place.run_on_terminal(README.read_text())
    assert "\x1b[" in output, "on a terminal there are colours"
    assert "unexpected element <colour> in <fspool>" in output, "the command says what last_error says"
    assert not is_mounted(place.mount)
    tank = place.base / "storage" / "pools" / "tank"
    assert sorted(one.name for one in tank.iterdir() if one.name != ".fspool") == ["relaunch", "shop", "web"]
    assert (tank / "shop/index.html").read_text() == "hello\n"
    log = (place.state / "fspoolfs.log").read_text()
    assert "ERROR" not in log
    assert "Traceback" not in log


def test_every_step_of_one_tour_is_a_step_of_the_other() -> None:
    """Side by side: the blocks are the same steps, but for the first of files, which looks around."""
    files, by_commands = (blocks(README.read_text(), kind) for kind in KINDS)
    assert len(files) == len(by_commands)


def test_what_the_tour_says_afterwards_holds(place: Place) -> None:
    """Define the pool again, and every item is back."""
    place.run(README.read_text())
    after = f"""```sh tour
fspoolfs mount {SHOWN}
mkdir {SHOWN}/pools/tank
echo start > {SHOWN}/pools/tank/status
[ "$(echo $(ls {SHOWN}/pools/tank/items))" = "relaunch shop web" ]
grep -q hello {SHOWN}/pools/tank/items/shop/data/index.html
grep -q hello {SHOWN}/pools/tank/items/shop/snapshots/monday/data/index.html
fspoolfs unmount {SHOWN}
```
"""
    place.run(after)


# -- the test's own tools -------------------------------------------------------------------------


def test_a_here_document_belongs_to_its_command() -> None:
    block = "cat > x <<XML\n<a>\n\nb\nXML\n\nls\ncat <<'E'\nq\nE\n"
    assert list(commands(block)) == ["cat > x <<XML\n<a>\n\nb\nXML", "ls", "cat <<'E'\nq\nE"]


@pytest.mark.parametrize(
    "line", ["false", "! true", "cat nothing", "! echo x > /dev/null", "no-such-program"]
)
def test_a_line_that_does_not_do_as_it_should_fails(line: str, place: Place) -> None:
    with pytest.raises(AssertionError, match="status"):
        place.run(f"```sh tour\ntrue\n{line}\ntrue\n```\n")


def test_lines_share_one_shell(place: Place) -> None:
    assert place.run("```sh tour\ncd /\nx=1\n```\ntext\n```sh tour\n! false\necho $x $PWD\n```\n") == "1 /\n"
