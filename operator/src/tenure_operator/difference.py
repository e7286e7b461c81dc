"""Whether a live object still says all that we say, whatever others have added."""

from typing import Any


def differs(desired: Any, live: Any) -> bool:
    """Whether anything of `desired` is missing in `live` or has another value.

    Mappings may have more keys in `live` (defaults, other writers). Lists are compared element by element: a longer one
    differs. What is empty equals what is absent, since the API server drops it.
    """
    if isinstance(desired, dict):
        if not isinstance(live, dict):
            return bool(desired) or live is not None
        return any(differs(value, live.get(key)) for key, value in desired.items())
    if isinstance(desired, list):
        if not isinstance(live, list):
            return bool(desired) or live is not None
        return len(desired) != len(live) or any(differs(d, v) for d, v in zip(desired, live, strict=True))
    return bool(desired != live)


def _content(manifest: dict[str, Any]) -> dict[str, Any]:
    """Without the envelope, which identifies the object and which the cache does not keep."""
    return {key: value for key, value in manifest.items() if key not in ("apiVersion", "kind")}


def has_drifted(desired: dict[str, Any], live: dict[str, Any]) -> bool:
    """Whether a live object as cached differs from a desired manifest."""
    return differs(_content(desired), live)
