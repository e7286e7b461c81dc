"""Which configuration holds: mounted, kept and pushed ones meet."""

from pathlib import Path

import pytest

from tenure_sidecar.config import CONFIG_FILE, mounted, newer, parsed
from tenure_sidecar.errors import RefusedError
from unit.sidecar.support import a_config, a_policy


def test_the_first_configuration_holds() -> None:
    offered = a_config()
    assert newer(None, offered) == offered
    assert newer(offered, None) == offered
    assert newer(None, None) is None


def test_the_higher_generation_of_the_same_agent_wins() -> None:
    old, new = a_config(generation=1, instructions="old"), a_config(generation=2, instructions="new")
    assert newer(old, new) == new
    assert newer(new, old) == new


def test_of_equal_generations_the_offered_one_wins() -> None:
    kept, offered = a_config(instructions="kept"), a_config(instructions="offered")
    assert newer(kept, offered) == offered


def test_another_agent_of_the_same_name_wins_whatever_its_generation() -> None:
    kept, offered = a_config(generation=9, uid="a1"), a_config(generation=1, uid="a2")
    assert newer(kept, offered) == offered


def test_the_policy_is_judged_by_its_own_generation() -> None:
    kept = a_config(generation=1, policy=a_policy(age=10, generation=5))
    offered = a_config(generation=2, policy=a_policy(age=99, generation=4))
    held = newer(kept, offered)
    assert held is not None
    assert held.agent_generation == 2
    assert held.policy == kept.policy


def test_another_policy_replaces_the_kept_one() -> None:
    kept = a_config(policy=a_policy(age=10, generation=5, uid="p1"))
    offered = a_config(policy=a_policy(age=20, generation=1, uid="p2"))
    assert newer(kept, offered) == offered


def test_a_policy_that_is_no_longer_referred_to_is_gone() -> None:
    kept, offered = a_config(generation=1, policy=a_policy(age=10)), a_config(generation=2)
    held = newer(kept, offered)
    assert held is not None
    assert held.policy is None


def test_a_stale_configmap_does_not_take_the_policy_away() -> None:
    kept, stale = a_config(generation=2, policy=a_policy(age=10)), a_config(generation=1)
    assert newer(kept, stale) == kept


def test_the_mounted_configuration_is_read(tmp_path: Path) -> None:
    config = a_config(policy=a_policy(age=3))
    (tmp_path / CONFIG_FILE).write_text(config.model_dump_json(by_alias=True))
    assert mounted(tmp_path) == config


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff\xfe"])
def test_a_mounted_configuration_that_is_not_valid_counts_for_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CONFIG_FILE).write_bytes(content)
    assert mounted(tmp_path) is None


def test_a_missing_one_too(tmp_path: Path) -> None:
    assert mounted(tmp_path) is None


def test_a_push_that_is_not_valid_is_refused_by_name_and_without_its_content() -> None:
    body = a_config().model_dump_json(by_alias=True).replace('"agentGeneration":1', '"agentGeneration":"secret"')
    with pytest.raises(RefusedError, match="agentGeneration") as refusal:
        parsed(body.encode())
    assert "secret" not in str(refusal.value)
    assert refusal.value.status == 400
