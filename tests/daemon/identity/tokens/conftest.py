"""A verifier of the one secret."""

import pytest

from daemon.identity.tokens import (
    TokenVerifier,
)
from tests.support.made_tokens import POLICY, symmetric


@pytest.fixture
def verifier() -> TokenVerifier:
    return TokenVerifier(POLICY, [symmetric()])
