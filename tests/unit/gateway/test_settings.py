import re
from pathlib import Path

import pytest

from tenure_api.environment import InvalidSettingsError
from tenure_gateway import settings
from tenure_gateway.settings import Settings, from_environment


def test_an_empty_environment_gives_the_defaults() -> None:
    assert from_environment({"TENURE_PORT": "", "PATH": "/bin"}) == Settings()


def test_the_environment_is_read() -> None:
    read = from_environment({"TENURE_AUDIENCE": "us", "TENURE_SIGNING_KEY_FILE": "/k", "TENURE_HOLD_SECONDS": "1.5"})
    assert (read.audience, read.signing_key_file, read.hold_seconds) == ("us", Path("/k"), 1.5)


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(InvalidSettingsError, match=r"TENURE_PORT: .*TENURE_LOG_LEVEL: "):
        from_environment({"TENURE_PORT": "http", "TENURE_LOG_LEVEL": "LOUD"})


def test_the_table_says_what_is_there() -> None:
    rows = dict(re.findall(r"^\| `TENURE_(\w+)` \| `([^`]*)`", settings.__doc__ or "", re.MULTILINE))
    assert rows == {name.upper(): str(value) for name, value in Settings().model_dump().items()} | {
        name.upper(): f"{value:g}" for name, value in Settings().model_dump().items() if isinstance(value, float)
    }
