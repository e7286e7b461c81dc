from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from unit.sidecar.world import World, a_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A sidecar that is ready, with a scripted model and a scripted agent."""
    async with a_world(tmp_path) as found:
        yield found
