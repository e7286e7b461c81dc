"""Holds at a stand-in: places at which its calls wait until a test lets them go; see `tests/doubles/control`."""

import time
from typing import Any

import httpx


class Control:
    """The inspection side of a stand-in."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=10, trust_env=False)

    def hold(self, name: str) -> None:
        """Lets calls wait at a hold from now on."""
        self._post("hold", name=name)

    def release(self, name: str, drop: bool = False) -> None:
        """Lets the calls at a hold go, or drops them, without their effect and answer; those that come later pass."""
        self._post("release", name=name, drop=str(drop).lower())

    def waiting(self, name: str) -> int:
        """How many calls wait at a hold; of those whose caller is gone some count and some do not."""
        return int(self._get("hold", name=name)["waiting"])

    def await_hold(self, name: str, seconds: float = 60) -> None:
        """Returns when a call has come to a hold that is set. Raises `TimeoutError`."""
        deadline = time.monotonic() + seconds
        while not self.waiting(name):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no call has come to {name} within {seconds} s")
            time.sleep(0.01)

    def _get(self, path: str, **query: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.get(f"/control/{path}", params=query).raise_for_status().json()
        return answer

    def _post(self, path: str, **query: str) -> None:
        self._client.post(f"/control/{path}", params=query).raise_for_status()
