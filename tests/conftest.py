"""What every test shares: one event loop kind, and the certainty that nothing is left behind."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio; Trunkline knows no other loop."""
    return "asyncio"
