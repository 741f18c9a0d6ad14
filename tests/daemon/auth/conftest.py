"""A verifier of the one secret."""

import pytest

from daemon.auth import (
    TokenVerifier,
)
from tests.daemon.auth.tokens import POLICY, symmetric


@pytest.fixture
def verifier() -> TokenVerifier:
    return TokenVerifier(POLICY, [symmetric()])
