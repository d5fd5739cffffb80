"""What the peers need installed: distribution packages, and Python bindings beside the project's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.errors import BenchError

#: Not in the project's environment, which has what fspoolfs itself needs and nothing else.
_PYTHON = Path(__file__).resolve().parents[2] / ".bench" / "python"


def install(packages: Iterable[str]) -> None:
    """Install what is missing of `packages` with apt-get; raises `BenchError` where that fails."""
    missing = sorted(package for package in set(packages) if not _installed(package))
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise BenchError(f"apt-get is missing; install by other means: {' '.join(missing)}")
    print(f"bench: installing {' '.join(missing)}", file=sys.stderr)
    command = ["apt-get", "install", "--yes", "--quiet=2", "--no-install-recommends", "--", *missing]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if subprocess.run(command, env=environment, stdout=sys.stderr).returncode:
        raise BenchError(f"apt-get could not install {' '.join(missing)}; try apt-get update")


def _installed(package: str) -> bool:
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    answer = subprocess.run(query, capture_output=True, text=True)
    return answer.stdout == "installed"


def install_python(requirement: str, *, module: str) -> None:
    """Make `module` importable, installing `requirement` into a directory of the benchmark's own."""
    if os.fspath(_PYTHON) not in sys.path:
        sys.path.append(os.fspath(_PYTHON))
    if (_PYTHON / f"{module}.py").exists():
        return
    print(f"bench: installing {requirement}", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", os.fspath(_PYTHON), requirement]
    if subprocess.run(command, stdout=sys.stderr).returncode:
        raise BenchError(f"pip could not install {requirement}")
