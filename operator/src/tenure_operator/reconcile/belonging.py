"""Which objects are a session's: pure."""

from dataclasses import dataclass

from tenure_api.names import AGENT_LABEL, API_VERSION, SET_LABEL, SUBJECT_ANNOTATION
from tenure_api.session import AgentSession
from tenure_operator.kinds import CLAIMS, SESSIONS, Kind, Manifest, Meta
from tenure_operator.reconcile.children import Child, Standing, child


@dataclass(frozen=True)
class Belonging:
    """Tells a session's objects from others of the same name."""

    meta: Meta
    session: AgentSession
    set_name: str

    def child(self, kind: Kind, live: Manifest | None) -> Child:
        """An object with its standing.

        Besides what the session owns, its own are the objects of the warm set that it has claimed, whose labels and
        owners are put right behind the claim, and the volume that a session of the same name, agent and subject has
        left to it.
        """
        found = child(kind, live, SESSIONS, self.meta)
        if live is None or found.standing is Standing.OURS:
            return found
        if self._is_claimed(kind, live) or self._is_retained(kind, live):
            return found._replace(standing=Standing.OURS)
        return found

    def _is_claimed(self, kind: Kind, live: Manifest) -> bool:
        status = self.session.status
        if status.set_name is None or status.set_name == self.meta.name or _set_of(live) != status.set_name:
            return False
        if any(_is_session(reference) for reference in live["metadata"].get("ownerReferences", [])):
            return False
        return kind is not CLAIMS or live["metadata"]["uid"] == status.identity

    def _is_retained(self, kind: Kind, live: Manifest) -> bool:
        meta = live["metadata"]
        return (
            kind is CLAIMS
            and not meta.get("ownerReferences")
            and _set_of(live) == self.set_name
            and meta.get("labels", {}).get(AGENT_LABEL) == self.session.spec.agent_ref.name
            and meta.get("annotations", {}).get(SUBJECT_ANNOTATION) == self.session.spec.subject
        )


def with_set(meta: Meta, session: AgentSession, claims: list[Manifest]) -> AgentSession:
    """The session with the name of the set that it has.

    If its status does not know of a volume, as after its loss, a claim that is labelled as its own tells.
    """
    status = session.status
    if status.identity is not None or status.lease is not None:
        return session
    for claim in claims:
        set_name = _set_of(claim)
        if set_name and Belonging(meta, session, set_name).child(CLAIMS, claim).standing is Standing.OURS:
            return session.model_copy(update={"status": status.model_copy(update={"set_name": set_name})})
    return session


def _set_of(live: Manifest) -> str | None:
    found: str | None = live["metadata"].get("labels", {}).get(SET_LABEL)
    return found


def _is_session(reference: Manifest) -> bool:
    return (reference["apiVersion"], reference["kind"]) == (API_VERSION, SESSIONS.name)
