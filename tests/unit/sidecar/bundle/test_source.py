"""What the environment says of how a session begins."""

import pytest

from tenure_sidecar.settings import Source, from_environment

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("environment", "source"),
    [
        ({}, None),
        ({"TENURE_SOURCE": ""}, None),
        ({"TENURE_SOURCE": "Fork"}, Source()),
        ({"TENURE_SOURCE": "Import", "TENURE_SOURCE_DIGEST": DIGEST}, Source(DIGEST)),
    ],
)
def test_the_source_is_read(environment: dict[str, str], source: Source | None) -> None:
    assert from_environment({"TENURE_IDENTITY": "x"} | environment).source == source


@pytest.mark.parametrize(
    "environment",
    [
        {"TENURE_SOURCE": "fork"},
        {"TENURE_SOURCE": "Import"},
        {"TENURE_SOURCE": "Import", "TENURE_SOURCE_DIGEST": DIGEST.upper()},
        {"TENURE_SOURCE_DIGEST": DIGEST},
    ],
)
def test_a_source_that_makes_no_sense_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="TENURE_SOURCE must be Fork, or Import"):
        from_environment({"TENURE_IDENTITY": "x"} | environment)
