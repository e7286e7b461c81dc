"""What the scripted model has seen."""

import httpx


class ScriptedModel:
    """The control side of the scripted model (see `tests/doubles/scripted_model`)."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=10)

    def calls(self, tag: str) -> int:
        """How many model calls carried `tag:<tag>` in their last user message.

        Since the model started, which may be many runs ago: no two runs may use the same tag.
        """
        count: int = self._client.get("/control/calls", params={"tag": tag}).raise_for_status().json()["count"]
        return count
