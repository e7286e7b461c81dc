"""The configuration: mounted at start, pushed by the operator at every change, and the last accepted one kept."""

from pathlib import Path

from pydantic import ValidationError

from tenure_api.configuration import EffectivePolicy, SessionConfig
from tenure_sidecar import asgi

CONFIG_FILE = "config.json"


def mounted(directory: Path) -> SessionConfig | None:
    """The configuration from the ConfigMap; None if it is absent or not valid, so that the kept one serves."""
    try:
        return SessionConfig.model_validate_json((directory / CONFIG_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def parsed(body: bytes) -> SessionConfig:
    """A pushed configuration. Raises `RefusedError`, naming what is wrong with it but quoting nothing of it."""
    return asgi.parsed(SessionConfig, body, "invalid_config", "the configuration is not valid: ")


def newer(kept: SessionConfig | None, offered: SessionConfig | None) -> SessionConfig | None:
    """What holds when `offered` comes to a sidecar that has `kept`.

    Of the same agent, the higher generation wins, and with it the reference to a policy; of the same policy, the higher
    generation wins. In all other cases what is offered holds. So neither a stale ConfigMap nor a late push by an
    operator that no longer leads turns anything back.
    """
    if kept is None or offered is None:
        return offered or kept
    stale = kept.agent_uid == offered.agent_uid and kept.agent_generation > offered.agent_generation
    base, other = (kept, offered) if stale else (offered, kept)
    return base.model_copy(update={"policy": _newer_policy(base.policy, other.policy)})


def _newer_policy(chosen: EffectivePolicy | None, other: EffectivePolicy | None) -> EffectivePolicy | None:
    if chosen and other and chosen.uid == other.uid and other.generation > chosen.generation:
        return other
    return chosen
