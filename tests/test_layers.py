"""The architecture, as the imports of the package show it."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.imports import Imports, cycle, imports_of_package, violations

PROJECT = Path(__file__).parents[1]

#: Each layer may import those after it. Below the daemon nobody knows its configuration, log and mount point,
#: nor who supervises it.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("daemon",),
    ("config", "log", "mountpoint", "supervision"),
    ("ops",),
    ("tree",),
    ("service",),
    ("backends",),
    ("system",),
    ("model",),
    ("progress", "units"),
    ("names",),
    ("errors",),
)
RANKS = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}

#: Imports that the order of the layers would allow.
FORBIDDEN = {("ops", "backends"), ("ops", "system")}

MAX_LINES = 400
#: A test module is a list, and longer before it has two jobs.
MAX_TEST_LINES = 550


def part_of(module: str) -> str:
    """The layer's part that a module of the package belongs to; "" for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def may_import(importer: str, imported: str) -> bool:
    """Whether the layers allow that a module of the package imports another one."""
    if imported.partition(".")[0] != "fspoolfs" or not part_of(imported):
        return True
    above, below = part_of(importer), part_of(imported)
    return above == below or (RANKS[above] < RANKS[below] and (above, below) not in FORBIDDEN)


@pytest.fixture(scope="module")
def imports() -> Imports:
    return imports_of_package(PROJECT / "fspoolfs")


def test_every_module_belongs_to_a_layer(imports: Imports) -> None:
    assert [module for module in imports if part_of(module) not in {"", *RANKS}] == []


def test_every_layer_exists(imports: Imports) -> None:
    assert set(RANKS) - {part_of(module) for module in imports} == set()


def test_no_layer_imports_one_above_it(imports: Imports) -> None:
    assert violations(imports, may_import) == []


def test_no_modules_import_each_other(imports: Imports) -> None:
    assert cycle(imports) == []


def test_only_the_protocol_layer_and_the_daemon_know_fuse(imports: Imports) -> None:
    def knows(importer: str, imported: str) -> bool:
        return imported.partition(".")[0] != "pyfuse3" or part_of(importer) in {"ops", "daemon"}

    assert violations(imports, knows) == []


#: The modules of the command line that start a daemon, or look at what one would find. All others work on the
#: mounted tree, as any user can.
SERVING = {
    "fspoolfs.cli.serving",
    "fspoolfs.cli.starting",
    "fspoolfs.cli.mount_helper",
    "fspoolfs.cli.checking",
}
KNOWN_TO_COMMANDS = {"cli", "config", "mountpoint", "model", "units", "names", "errors"}


def test_commands_work_on_the_tree_alone(imports: Imports) -> None:
    def is_outside(importer: str, imported: str) -> bool:
        if part_of(importer) != "cli" or importer in SERVING or imported.partition(".")[0] != "fspoolfs":
            return True
        return part_of(imported) in {"", *KNOWN_TO_COMMANDS} and imported not in SERVING

    assert {module for module in imports if part_of(module) == "cli"} > SERVING
    assert violations(imports, is_outside) == []


def test_no_file_outgrows_its_purpose() -> None:
    files = [path for folder in ("fspoolfs", "scripts", "tests") for path in (PROJECT / folder).rglob("*")]
    sources = [path for path in files if path.suffix == ".py" or path.parent.name == "scripts"]
    lines = {str(path): len(path.read_text().splitlines()) for path in sources if path.is_file()}
    tests = str(PROJECT / "tests")
    limits = {path: MAX_TEST_LINES if path.startswith(tests) else MAX_LINES for path in lines}
    assert {path: number for path, number in lines.items() if number > limits[path]} == {}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small package to write modules into."""
    directory = tmp_path / "fspoolfs"
    for name in ("", "ops", "service", "system"):
        (directory / name).mkdir()
        (directory / name / "__init__.py").write_text("")
    return directory


@pytest.mark.parametrize(
    ("module", "statement", "found"),
    [
        ("system/paths", "import fspoolfs.service", "fspoolfs.system.paths imports fspoolfs.service"),
        ("system/paths", "from ..service import x", "fspoolfs.system.paths imports fspoolfs.service"),
        (
            "system/paths",
            "def f():\n    from fspoolfs import ops",
            "fspoolfs.system.paths imports fspoolfs.ops",
        ),
        ("system/__init__", "from ..ops import x", "fspoolfs.system imports fspoolfs.ops"),
        ("ops/nodes", "from fspoolfs.system import x", "fspoolfs.ops.nodes imports fspoolfs.system"),
        ("errors", "import fspoolfs.system.x", "fspoolfs.errors imports fspoolfs.system.x"),
    ],
)
def test_an_import_against_the_layers_is_found(
    package: Path, module: str, statement: str, found: str
) -> None:
    (package / f"{module}.py").write_text(statement)
    assert violations(imports_of_package(package), may_import) == [found]


def test_an_import_along_the_layers_is_allowed(package: Path) -> None:
    (package / "service/items.py").write_text("import trio\nfrom . import locks\nimport fspoolfs.system")
    assert violations(imports_of_package(package), may_import) == []


def test_an_import_cycle_is_found(package: Path) -> None:
    (package / "service/a.py").write_text("from . import b")
    (package / "service/b.py").write_text("from fspoolfs.service.c import x")
    (package / "service/c.py").write_text("import fspoolfs.service.a")
    found = cycle(imports_of_package(package))
    assert len(found) == 4
    assert set(found) == {f"fspoolfs.service.{name}" for name in "abc"}
