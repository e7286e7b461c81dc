"""What the sidecars of an agent are told, and the ConfigMap that tells it to those that start."""

from tenure_api import names
from tenure_api.agent import AgentSpec, Model
from tenure_api.configuration import EffectivePolicy, ModelRoute, ModelTarget, SessionConfig
from tenure_api.fields import SecretKeyRef
from tenure_api.policy import DataClass, MemoryPolicySpec
from tenure_operator.desired.credentials import calls_agents, credential_path
from tenure_operator.desired.parts import labels, manifest
from tenure_operator.desired.tools import limits, tool_configs
from tenure_operator.kinds import AGENTS, CONFIG_MAPS, Manifest, Meta


def effective_policy(policy: Meta, spec: MemoryPolicySpec) -> EffectivePolicy:
    """A policy as a sidecar enforces it."""
    transcript = next((rule for rule in spec.classes if rule.name is DataClass.TRANSCRIPT), None)
    return EffectivePolicy(
        name=policy.name,
        uid=policy.uid,
        generation=policy.generation,
        transcript_max_age_seconds=transcript.max_age_seconds if transcript else None,
        transcript_max_count=transcript.max_count if transcript else None,
        interval_seconds=spec.enforcement.interval_seconds,
    )


def _credential(reference: SecretKeyRef | None) -> str | None:
    return credential_path(reference) if reference else None


def _route(model: Model) -> ModelRoute:
    targets = [
        ModelTarget(name=model.name, base_url=model.base_url, credential=_credential(model.credentials_secret_ref))
    ]
    for fallback in model.fallbacks:
        reference = fallback.credentials_secret_ref
        if reference is None and fallback.base_url is None:
            reference = model.credentials_secret_ref  # only to the endpoint that it was given for
        base_url = fallback.base_url or model.base_url
        targets.append(ModelTarget(name=fallback.name, base_url=base_url, credential=_credential(reference)))
    parameters = model.parameters
    return ModelRoute(
        api=model.api.value,
        targets=targets,
        temperature=float(parameters.temperature) if parameters and parameters.temperature else None,
        top_p=float(parameters.top_p) if parameters and parameters.top_p else None,
        max_output_tokens=parameters.max_output_tokens if parameters else None,
        context_window_tokens=model.context_window_tokens,
        first_token_timeout_seconds=model.first_token_timeout_seconds,
    )


def session_config(agent: Meta, spec: AgentSpec, policy: EffectivePolicy | None, gateway_url: str) -> SessionConfig:
    """The configuration of all sessions of an agent. A policy that is referred to must be given."""
    return SessionConfig(
        agent=agent.name,
        agent_uid=agent.uid,
        agent_generation=agent.generation,
        instructions=spec.instructions,
        model=_route(spec.model),
        tools=tool_configs(agent.namespace, spec),
        limits=limits(spec.turn_limits),
        gateway_url=gateway_url if calls_agents(spec) else "",
        policy=policy,
    )


def config_map(agent: Meta, config: SessionConfig, public_keys: dict[str, str]) -> Manifest:
    """The start values of the agent's sidecars. `public_keys` are PEMs by issuer: whom a sidecar may believe."""
    return manifest(
        CONFIG_MAPS,
        names.agent_config(agent.name),
        (AGENTS, agent),
        labels("agent", agent.name),
        data={
            "config.json": config.model_dump_json(by_alias=True),
            **{f"{issuer}.pub": pem for issuer, pem in public_keys.items()},
        },
    )
