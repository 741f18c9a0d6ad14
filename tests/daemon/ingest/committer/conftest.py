"""A committer that runs, and cuts a cycle at each byte."""

from collections.abc import AsyncIterator

import pytest

from daemon.tasks import background
from tests.support.commit_cycles import Cycles


@pytest.fixture
async def cycles() -> AsyncIterator[Cycles]:
    made = Cycles()
    async with background(made.committer.run(made.listener)):
        yield made
