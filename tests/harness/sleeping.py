"""Sessions that sleep and wake, as the API server shows them. Nothing here asks the gateway: that would wake them."""

from harness.kube import Manifest, NotYetError, eventually
from harness.tenure import Place
from tenure_api.names import session_pod


def status(place: Place, session: str) -> Manifest:
    """What a session says of itself."""
    found: Manifest = place.kube.get("agentsession", session).get("status", {})
    return found


def generation(place: Place, session: str) -> int:
    """The lease generation of a session; 0 if it never ran."""
    return int(status(place, session).get("lease", {}).get("generation", 0))


def pod(place: Place, session: str) -> Manifest | None:
    """The pod of a session."""
    return place.kube.find("pod", session_pod(status(place, session).get("setName", session)))


def asleep(place: Place, session: str, seconds: float = 60) -> Manifest:
    """Waits until a session sleeps and its pod is gone; returns its status."""

    def look() -> Manifest:
        found = status(place, session)
        if found.get("effectiveMode") != "Hibernated":
            raise NotYetError(f"{session} is {found.get('effectiveMode')}")
        if pod(place, session) is not None:
            raise NotYetError(f"{session} sleeps, and has a pod")
        return found

    return eventually(look, seconds)


def awake(place: Place, session: str, seconds: float = 60) -> Manifest:
    """Waits until a session does not sleep; returns its status."""

    def look() -> Manifest:
        found = status(place, session)
        if found.get("effectiveMode") != "Running":
            raise NotYetError(f"{session} is {found.get('effectiveMode')}")
        return found

    return eventually(look, seconds)
