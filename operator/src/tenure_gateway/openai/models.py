"""Agents as models."""

from collections.abc import Iterable

from tenure_gateway.directory import AgentView
from tenure_gateway.openai.errors import Json


def model(agent: AgentView) -> Json:
    """One agent."""
    return {"id": str(agent.key), "object": "model", "created": agent.created, "owned_by": agent.key.namespace}


def listing(agents: Iterable[AgentView]) -> Json:
    """All agents that the caller may use."""
    return {"object": "list", "data": [model(agent) for agent in agents]}
