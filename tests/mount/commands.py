"""The command `fspoolfs` against the tree of a test's daemon."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.daemon import PROJECT
from support.shell import User, run

#: A warning in a command is an error of the command.
PROGRAM = (sys.executable, "-W", "error", "-m", "fspoolfs")


@dataclass(frozen=True, slots=True)
class Commands:
    """Runs commands for one tree, which they find by the environment."""

    mount: Path
    user: User | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {"FSPOOLFS_MOUNT": str(self.mount), "PYTHONPATH": str(PROJECT)}

    def attempt(
        self, *arguments: str | Path, input: str | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return run(
            *PROGRAM, *arguments,
            input=input, env={**self.environment, **(env or {})}, check=False, user=self.user,
        )  # fmt: skip

    def __call__(
        self, *arguments: str | Path, input: str | None = None, env: Mapping[str, str] | None = None
    ) -> str:
        """What a command prints that succeeds, with nothing on stderr."""
        result = self.attempt(*arguments, input=input, env=env)
        assert (result.returncode, result.stderr) == (0, ""), result
        return result.stdout

    def json(self, *arguments: str | Path) -> Any:
        return json.loads(self(*arguments, "--json"))

    def refusal(
        self,
        *arguments: str | Path,
        status: int = 1,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> str:
        """The sentence of a command that fails with `status` and prints nothing else."""
        result = self.attempt(*arguments, input=input, env=env)
        assert (result.returncode, result.stdout) == (status, ""), result
        assert "Traceback" not in result.stderr
        return result.stderr.removesuffix("\n").rpartition("\n")[2].removeprefix("fspoolfs: ")
