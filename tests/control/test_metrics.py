"""GET /metrics."""

import pytest

from control.app import Options
from tests.support.openapi_contract import CheckingClient


async def test_metrics_are_public_unless_told_otherwise(client: CheckingClient) -> None:
    answer = await client.get("/metrics", token=None)
    assert (answer.body, answer.headers["Content-Type"]) == (b"up 1\n", "text/plain; version=0.0.4; charset=utf-8")


async def test_the_scraper_chooses_the_format(client: CheckingClient) -> None:
    answer = await client.get("/metrics", token=None, headers={"Accept": "application/openmetrics-text"})
    assert answer.body == b"# EOF\n"


class TestPrivate:
    @pytest.fixture
    def options(self) -> Options:
        return Options(metrics_public=False)

    @pytest.mark.parametrize(("token", "status"), [(None, 401), ("cam-1", 403), ("reader", 200), ("operator", 200)])
    async def test_metrics_ask_for_an_operators_token(
        self, client: CheckingClient, token: str | None, status: int
    ) -> None:
        assert (await client.get("/metrics", token=token)).status == status
