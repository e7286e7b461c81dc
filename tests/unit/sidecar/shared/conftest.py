from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from unit.sidecar.shared.world import HostWorld, a_host


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[HostWorld]:
    """A host that is ready, with a model that echoes and a scripted agent."""
    async with a_host(tmp_path) as found:
        yield found
