"""How many files the daemon may open."""

from __future__ import annotations

import sys

import pytest

from support.daemon import PROJECT
from support.shell import run

SCRIPT = """
import resource, sys
from fspoolfs.system import descriptors
soft, hard, wanted = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
descriptors.MOST = 128
descriptors.raise_limit()
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (wanted, hard)
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted"),
    [(32, 64, 64), (32, 128, 128), (32, 256, 128), (200, 256, 200)],
    ids=["all that may be had", "just enough", "not more than is of use", "never less than before"],
)
def test_the_limit_is_raised_as_far_as_it_may(soft: int, hard: int, wanted: int) -> None:
    run(sys.executable, "-c", SCRIPT, str(soft), str(hard), str(wanted), cwd=PROJECT)
