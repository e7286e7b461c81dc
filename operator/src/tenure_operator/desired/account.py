"""The ServiceAccount of an agent."""

from tenure_api import names
from tenure_operator.desired.parts import labels, manifest
from tenure_operator.kinds import ACCOUNTS, AGENTS, Manifest, Meta


def account(agent: Meta) -> Manifest:
    """The identity of the agent's pods. It has no rights; it is there so that users can give it image pull secrets."""
    return manifest(
        ACCOUNTS,
        names.agent_account(agent.name),
        (AGENTS, agent),
        labels("agent", agent.name),
        automountServiceAccountToken=False,
    )
