import pytest

from tenure_api.wire import RUNTIME_PORT
from tenure_runtime.settings import Settings, SettingsError

GOOD = {"OPENAI_BASE_URL": "http://127.0.0.1:8080/v1", "OPENAI_API_KEY": "secret"}


def test_what_is_not_said_has_a_default() -> None:
    settings = Settings.read(GOOD)
    assert (settings.api, settings.window, settings.port) == ("ChatCompletions", None, RUNTIME_PORT)


def test_all_is_read() -> None:
    more = {"TENURE_MODEL_API": "Responses", "TENURE_CONTEXT_WINDOW_TOKENS": "4096", "PORT": "9"}
    settings = Settings.read({**GOOD, **more})
    assert (settings.api, settings.window, settings.port) == ("Responses", 4096, 9)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_BASE_URL", ""),
        ("OPENAI_API_KEY", ""),
        ("TENURE_MODEL_API", "Chat"),
        ("TENURE_CONTEXT_WINDOW_TOKENS", "0"),
        ("TENURE_CONTEXT_WINDOW_TOKENS", "many"),
        ("PORT", "-1"),
    ],
)
def test_a_bad_value_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.read({**GOOD, name: value})


def test_the_token_is_never_shown() -> None:
    assert "secret" not in repr(Settings.read(GOOD))
