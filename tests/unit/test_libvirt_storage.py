"""libvirt as far as it is known without a daemon: what is missing, and libvirt's own simulation."""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path
from typing import Any

import pytest

from fspoolfs.errors import FspoolError, NotFoundError, TimeLimitError, UnsupportedError
from fspoolfs.system import libvirt_storage
from fspoolfs.system.libvirt_storage import Storage, unusable

TEST = "test:///default"
SIZE = 1 << 20

needs_module = pytest.mark.skipif(
    importlib.util.find_spec("libvirt") is None, reason="needs the Python module libvirt"
)


def test_a_missing_module_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "the extra libvirt" in unusable(TEST)
    with pytest.raises(UnsupportedError, match="the Python module libvirt is not installed"):
        Storage(TEST).pool("default")


@needs_module
@pytest.mark.required
def test_a_missing_daemon_is_named(tmp_path: Path) -> None:
    assert f"no daemon of libvirt listens at {tmp_path}/none" in unusable(
        f"storage:///system?socket={tmp_path}/none"
    )


@needs_module
@pytest.mark.required
@pytest.mark.parametrize(
    "uri", ["storage+ssh://root@other/system", "storage://other/system", "qemu+tls:///system"]
)
def test_volumes_of_another_host_are_not_looked_for_here(uri: str) -> None:
    assert "another host's" in unusable(uri)


@needs_module
@pytest.mark.required
def test_pools_and_volumes_are_found_made_and_removed() -> None:
    storage = Storage(TEST)
    pool = storage.pool("default-pool")
    assert pool is not None
    assert (pool.type, pool.active) == ("dir", True)
    assert storage.pool("nowhere") is None
    assert storage.volume("default-pool", "vol1") is None
    assert storage.volume("nowhere", "vol1") is None
    storage.create("default-pool", "vol1", 1 << 20, sparse=True)
    volume = storage.volume("default-pool", "vol1")
    assert volume is not None
    assert (volume.kind, volume.format, volume.capacity) == ("file", "raw", 1 << 20)
    storage.delete("default-pool", "vol1")
    assert storage.volume("default-pool", "vol1") is None


@needs_module
@pytest.mark.required
def test_refusals_are_told_in_libvirts_words() -> None:
    storage = Storage(TEST)
    with pytest.raises(
        NotFoundError, match=r"libvirt: delete volume x of pool default-pool: .*no storage vol"
    ):
        storage.delete("default-pool", "x")
    with pytest.raises(NotFoundError, match="nowhere"):
        storage.create("nowhere", "x", 1, sparse=True)
    storage.create("default-pool", "x", 1, sparse=False)
    with pytest.raises(FspoolError, match=r"libvirt: make volume x in pool default-pool: .*exists"):
        storage.create("default-pool", "x", 1, sparse=False)
    storage.delete("default-pool", "x")


@needs_module
@pytest.mark.required
def test_a_daemon_that_does_not_answer_is_given_up_and_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, hung = Storage(TEST), threading.Event()
    real = libvirt_storage._open

    def hangs(uri: str) -> Any:
        hung.wait()
        return real(uri)

    monkeypatch.setattr(libvirt_storage, "PATIENCE", 0.05)
    monkeypatch.setattr(libvirt_storage, "_open", hangs)
    with pytest.raises(TimeLimitError, match="has not answered within"):
        storage.pool("default-pool")
    hung.set()
    monkeypatch.undo()
    assert storage.pool("default-pool") is not None
