"""kopf is used only as an informer: none of its handlers blocks, writes or keeps anything on an object."""

import inspect
from typing import Any

from tenure_operator import watch
from tenure_operator.kinds import CHILDREN, OWNERS, WATCHED, Kind, Manifest
from tenure_operator.resync import SELECTOR


def nothing(_kind: Kind, _type: str | None, _manifest: Manifest) -> None:
    """Is told and forgets."""


def test_only_asynchronous_event_handlers_are_registered() -> None:
    registry = watch.registry(nothing)
    handlers = registry._watching.get_all_handlers()
    assert {str(handler.id) for handler in handlers} == {kind.plural for kind in WATCHED}
    assert all(inspect.iscoroutinefunction(handler.fn) for handler in handlers)
    for kind_of_handler in (registry._changing, registry._spawning, registry._indexing, registry._webhooks):
        assert list(kind_of_handler.get_all_handlers()) == []


def test_children_are_selected_by_the_server_and_what_users_write_is_not() -> None:
    selectors = watch.settings().watching.label_selectors
    assert all(selectors[kind.group, kind.version, kind.plural] == SELECTOR for kind in CHILDREN)
    assert not any((kind.group, kind.version, kind.plural) in selectors for kind in OWNERS)


def test_a_second_operator_never_pauses_this_one_and_logs_become_no_events() -> None:
    settings = watch.settings()
    assert settings.peering.standalone
    assert not settings.posting.enabled
    assert settings.queueing.worker_limit is None


async def test_each_event_is_passed_on_as_it_is() -> None:
    told: list[tuple[Kind, str | None, Manifest]] = []
    registry = watch.registry(lambda *event: told.append(event))
    for handler in registry._watching.get_all_handlers():
        seen: Any = handler.fn
        await seen(event={"type": "ADDED", "object": {}})
    assert [(kind, type_) for kind, type_, _ in told] == [(kind, "ADDED") for kind in WATCHED]
