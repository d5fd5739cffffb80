"""The contract of every source, over a pool on a logical volume: what of it a provider has a part in."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from conformance.cases import VOLUME_SIZE, SourceCase, volume_pool, volume_source
from conformance.test_source_contract import (  # noqa: F401
    built,
    test_attaching_again_gives_the_same_root,
    test_building_again_keeps_what_is_there,
    test_deleting_undoes_the_build_and_can_be_repeated,
    test_deletion_that_was_interrupted_is_finished_by_repeating_it,
    test_detaching_keeps_the_data_and_can_be_repeated,
    test_identity_does_not_change_when_the_pool_is_built,
    test_identity_is_that_of_the_storage_not_of_the_pool,
    test_nobody_but_its_users_holds_a_root,
    test_pool_that_was_not_built_cannot_be_attached,
    test_root_that_can_grow_keeps_what_it_holds_and_does_not_shrink_by_growing,
    test_storage_that_tells_whose_it_is_does_so_from_the_build_on,
    test_usable_source_accepts_its_own_definition,
)
from fspoolfs.model.definitions import PoolSource
from vm.volume_groups import Group

_numbers = count(1)


@pytest.fixture(scope="module")
def group() -> Group:
    return Group("conformance", 2 * VOLUME_SIZE)


@pytest.fixture
def case(group: Group, tmp_path: Path) -> Iterator[SourceCase]:
    source = PoolSource(pool=group.name, volume=f"v{next(_numbers)}", provider="lvm", format="xfs")
    made = SourceCase(
        volume_source(tmp_path), volume_pool(tmp_path, source, VOLUME_SIZE), clean_up=group.clear
    )
    yield made
    made.close()
