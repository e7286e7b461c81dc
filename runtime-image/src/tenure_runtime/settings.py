"""What the runtime is told by its environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

ModelApi = Literal["ChatCompletions", "Responses"]


DEFAULT_PORT = 8000
"""`RUNTIME_PORT` of `tenure_api.wire`, which is not imported here because it takes too long: see `main`."""


class SettingsError(ValueError):
    """The environment does not say what it must; the message names the variable."""


@dataclass(frozen=True)
class Settings:
    """The environment of the agent container, as the operator sets it."""

    base_url: str
    """`OPENAI_BASE_URL`: the sidecar's model proxy."""
    api_key: str = field(repr=False)
    """`OPENAI_API_KEY`: the token of this pod. The runtime shows it to the sidecar, and the sidecar to the runtime."""
    api: ModelApi = "ChatCompletions"
    """`TENURE_MODEL_API`: the API that the model speaks."""
    window: int | None = None
    """`TENURE_CONTEXT_WINDOW_TOKENS`: tokens that the model can read at once; None if it is not known."""
    port: int = DEFAULT_PORT
    """`PORT`."""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Settings":
        """The settings in `environ`. Raises `SettingsError`."""
        return cls(
            base_url=_needed(environ, "OPENAI_BASE_URL"),
            api_key=_needed(environ, "OPENAI_API_KEY"),
            api=_api(environ.get("TENURE_MODEL_API") or "ChatCompletions"),
            window=_positive(environ, "TENURE_CONTEXT_WINDOW_TOKENS"),
            port=_positive(environ, "PORT") or DEFAULT_PORT,
        )


def _api(text: str) -> ModelApi:
    known: tuple[ModelApi, ...] = get_args(ModelApi)
    for api in known:
        if text == api:
            return api
    raise SettingsError(f"TENURE_MODEL_API must be {' or '.join(known)}, not {text!r}")


def _needed(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name)
    if not value:
        raise SettingsError(f"{name} must be set")
    return value


def _positive(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name)
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise SettingsError(f"{name} must be a positive whole number, not {text!r}")
    return int(text)
