from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from openai import AsyncOpenAI

from tenure_gateway.gateway import assemble
from tenure_gateway.settings import Settings
from unit.gateway.doubles import StandInCluster, listening
from unit.gateway.sidecars import SIGNING_KEY, StandInSidecars
from unit.gateway.world import World


@pytest.fixture
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A gateway with its surroundings, all over real sockets. `@pytest.mark.parametrize("world", …, indirect=True)`
    overrides settings.
    """
    overrides = getattr(request, "param", {})
    settings = Settings(**{"hold_seconds": 5, "token_cache_seconds": 0, "access_cache_seconds": 0, **overrides})
    async with AsyncExitStack() as stack:
        sidecars = StandInSidecars()
        sidecars.port = await stack.enter_async_context(listening(sidecars))
        http = await stack.enter_async_context(sidecars.client())
        cluster = StandInCluster()
        gateway = assemble(settings, SIGNING_KEY, cluster, http)
        port = await stack.enter_async_context(listening(gateway.front))
        world = World(gateway, cluster, sidecars, f"http://127.0.0.1:{port}")
        world.start()
        stack.push_async_callback(world.stop)
        yield world


@pytest.fixture
async def client(world: World) -> AsyncIterator[AsyncOpenAI]:
    """The official client, as alice, who may use all agents in `shop`."""
    async with world.client(world.alice) as client:
        yield client
