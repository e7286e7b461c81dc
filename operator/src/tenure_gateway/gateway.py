"""Puts the parts together. What is outside of the process comes from the caller, so that tests bring their own."""

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from tenure_api.bundle import keys_in
from tenure_api.tokens import Signer, public_key
from tenure_gateway.access import Access, Reviewer
from tenure_gateway.answers import Answers
from tenure_gateway.api_client import AGENTS, SESSIONS, Sink
from tenure_gateway.bundle_routes import BundleRoutes
from tenure_gateway.bundles import Bundles
from tenure_gateway.chat_routes import ChatRoutes
from tenure_gateway.containers_routes import ContainersRoutes
from tenure_gateway.conversations_routes import ConversationsRoutes
from tenure_gateway.delegation import Delegation
from tenure_gateway.directory import Directory
from tenure_gateway.front import Front
from tenure_gateway.metrics import Metrics
from tenure_gateway.places import Lifetimes, Places
from tenure_gateway.pods import Pods
from tenure_gateway.responses_routes import ResponsesRoutes
from tenure_gateway.routes import application, templates
from tenure_gateway.sessions import Sessions, Store
from tenure_gateway.settings import Settings
from tenure_gateway.sidecar import Sidecars, Tokens
from tenure_gateway.spool import Spool
from tenure_gateway.turns import Turns
from tenure_gateway.visitors import Visitors
from tenure_gateway.wakes import Bedside, Wakes
from tenure_gateway.workspaces import Workspaces


class Cluster(Reviewer, Store, Bedside, Protocol):
    """All that the gateway asks of the API server."""

    async def follow(self, resource: str, sink: Sink) -> None:
        """Keeps the sink up to date for ever."""


@dataclass(frozen=True)
class Gateway:
    """A gateway without its servers."""

    front: Front
    directory: Directory
    sessions: Sessions
    metrics: Metrics
    cluster: Cluster

    def unready(self) -> str | None:
        """Why no requests should come here, or None if they should."""
        if self.front.draining:
            return "shutting down"
        return None if self.directory.filled else "agents and sessions are being listed"

    async def follow(self) -> None:
        """Keeps the directory up to date for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.cluster.follow(AGENTS, self.directory.agents))
            group.create_task(self.cluster.follow(SESSIONS, self.directory.sessions))


def assemble(settings: Settings, signing_key: str, cluster: Cluster, http: aiohttp.ClientSession) -> Gateway:
    """A gateway with these settings. `signing_key` is an Ed25519 private key in PEM; `http` reaches sidecars."""
    metrics = Metrics()
    directory = Directory()
    access = Access(
        cluster, settings.audience, settings.token_cache_seconds, settings.access_cache_seconds, time.monotonic
    )
    sessions = Sessions(directory, cluster, access)
    sidecars = Sidecars(http, Tokens(Signer("gateway", signing_key), time.time))
    pods = Pods(directory, Wakes(directory, cluster, access, metrics), settings.hold_seconds, metrics)
    turns = Turns(pods, sidecars, settings.turn_timeout_seconds, metrics)
    delegation = Delegation(directory)
    visitors = Visitors(access, sessions, delegation)
    lifetimes = Lifetimes(settings.response_retention_seconds, settings.throwaway_seconds)
    places = Places(sessions, visitors, delegation, lifetimes)
    answers = Answers(sessions, turns)
    trusted = settings.trusted_keys() | keys_in(public_key(signing_key))
    spool = Spool(settings.spool_directory, settings.max_bundle_bytes, trusted)
    routes = [
        *ConversationsRoutes(visitors, sessions, turns).table(),
        *ResponsesRoutes(visitors, places, answers, turns).table(),
        *ChatRoutes(visitors, places, answers).table(),
        *ContainersRoutes(visitors, Workspaces(pods, sidecars)).table(),
        *BundleRoutes(visitors, access, sessions, Bundles(directory, pods, sidecars, signing_key), spool).table(),
    ]
    front = Front(
        application(routes), templates(routes), metrics, settings.max_body_bytes, settings.receive_timeout_seconds
    )
    return Gateway(front, directory, sessions, metrics, cluster)
