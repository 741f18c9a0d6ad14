"""The principals that the ports serve, and their refusals."""

from collections.abc import Awaitable

import pytest

from control.ports import (
    Permission,
    Principal,
    RequestRefused,
)
from tests.support.catalog_samples import TENANT

OTHER = "other-tenant"
BOSS = Principal(TENANT, "boss", True, frozenset({Permission.READ, Permission.DELETE}))


async def refusal(work: Awaitable[object]) -> tuple[int, str]:
    """The status and the error's registry name of a refusal."""
    with pytest.raises(RequestRefused) as refused:
        await work
    assert str(refused.value)
    return refused.value.status, refused.value.error.name
