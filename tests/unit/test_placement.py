"""Where a pool must not lie, and that the usual places are none of those."""

from __future__ import annotations

import pytest

from fspoolfs.errors import InvalidError
from fspoolfs.service.placement import check_apart


@pytest.mark.parametrize(
    ("place", "storage"),
    [
        ("/var/lib/fspoolfs/storage", "/var/lib/fspoolfs/storage"),
        ("/var/lib/fspoolfs/storage/pools/tank", "/var/lib/fspoolfs/storage"),
        ("/srv/tank", "/var/lib/fspoolfs/storage"),
        ("/var/lib/fspoolfs-tank", "/srv"),
    ],
)
def test_a_pool_beside_the_daemon_s_files_is_taken(place: str, storage: str) -> None:
    check_apart("tank", place, state="/var/lib/fspoolfs", storage=storage)


@pytest.mark.parametrize(
    ("place", "storage", "words"),
    [
        ("/var/lib/fspoolfs", "/var/lib/fspoolfs/storage", "lies in the daemon's state directory"),
        ("/var/lib/fspoolfs/pools", "/var/lib/fspoolfs/storage", "lies in the daemon's state directory"),
        ("/var/lib/fspoolfs/started/x", "/srv", "lies in the daemon's state directory"),
        ("/var/lib/fspoolfs/pools/tank", "/var/lib/fspoolfs", "lies in the daemon's state directory"),
        ("/var/lib/fspoolfs/pools/tank", "/var/lib", "lies in the daemon's state directory"),
        ("/var/lib", "/srv", "holds the daemon's state directory"),
        ("/", "/srv", "holds the daemon's state directory"),
    ],
)
def test_a_pool_among_the_daemon_s_files_is_refused(place: str, storage: str, words: str) -> None:
    with pytest.raises(InvalidError, match=f"pool tank: {place} {words} /var/lib/fspoolfs"):
        check_apart("tank", place, state="/var/lib/fspoolfs", storage=storage)
