"""Reading a package's imports without importing it: which module uses which, and what is wrong with that."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

#: Module names and, for each, the modules that it imports, in absolute names.
Imports = Mapping[str, frozenset[str]]


def imports_of_package(directory: Path) -> Imports:
    """The imports of each module of the package at `directory`, wherever in the module they stand.

    Imports for type checkers alone count as well: a layer that knows another's types depends on it.
    """
    modules = {_module_name(directory, path): path for path in sorted(directory.rglob("*.py"))}
    return {name: frozenset(_imports(name, path, modules)) for name, path in modules.items()}


def violations(imports: Imports, may_import: Callable[[str, str], bool]) -> list[str]:
    """One line for each import that `may_import(importer, imported)` does not allow."""
    return [
        f"{importer} imports {imported}"
        for importer in sorted(imports)
        for imported in sorted(imports[importer])
        if not may_import(importer, imported)
    ]


def cycle(imports: Imports) -> list[str]:
    """The modules of one import cycle, each importing the next; empty where there is none."""
    graph = {name: [other for other in sorted(used) if other in imports] for name, used in imports.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # graphlib names the cycle from what is imported to what imports it.
        found: list[str] = error.args[1]
        return found[::-1]
    return []


def _module_name(package: Path, path: Path) -> str:
    parts = (package.name, *path.relative_to(package).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(name: str, path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, name, is_package=path.name == "__init__.py")
            for alias in node.names:
                submodule = f"{origin}.{alias.name}"
                yield submodule if submodule in modules else origin


def _origin(node: ast.ImportFrom, name: str, *, is_package: bool) -> str:
    """The absolute name of what `node` imports from; each dot but the first goes one package up."""
    if not node.level:
        return node.module or ""
    parts = name.split(".")
    package = parts[: len(parts) - node.level + is_package]
    return ".".join([*package, node.module] if node.module else package)
