"""A set of pod, claim, key and NetworkPolicy: what one session runs on, or will."""

from dataclasses import dataclass

from tenure_api.names import HOST_LABEL, SESSION_LABEL, SET_LABEL, WARM_LABEL
from tenure_operator.desired.parts import labels
from tenure_operator.kinds import AGENTS, SESSIONS, Kind, Meta


@dataclass(frozen=True)
class SetOf:
    """Whose a set is. All its objects are named after it."""

    name: str
    """The session's own name, or another if it came from a warm pool."""
    agent: str
    owner: tuple[Kind, Meta]
    """The session; the agent while no session has claimed it."""
    subject: str = ""
    """Whose session it is; empty while no session has claimed it."""
    retained: bool = False
    """The volume, and with it its key, outlives the session."""
    shared: bool = False
    """Many sessions share it."""

    @classmethod
    def of_session(cls, session: Meta, name: str, agent: str, subject: str, retained: bool = False) -> "SetOf":
        """The set of a session."""
        return cls(name, agent, (SESSIONS, session), subject, retained)

    @classmethod
    def warm(cls, agent: Meta, name: str) -> "SetOf":
        """A set that an agent keeps for a session to come."""
        return cls(name, agent.name, (AGENTS, agent))

    @classmethod
    def host(cls, agent: Meta, name: str) -> "SetOf":
        """A set that sessions of an agent share."""
        return cls(name, agent.name, (AGENTS, agent), shared=True)

    @property
    def session(self) -> Meta | None:
        """The session that has it, if one has."""
        kind, meta = self.owner
        return meta if kind is SESSIONS else None

    @property
    def namespace(self) -> str:
        """Where its objects are."""
        return self.owner[1].namespace

    def labels(self) -> dict[str, str]:
        """The labels of its objects."""
        session = self.session
        held = {SESSION_LABEL: session.name} if session else {HOST_LABEL if self.shared else WARM_LABEL: "true"}
        return labels("session", self.agent) | held | {SET_LABEL: self.name}
