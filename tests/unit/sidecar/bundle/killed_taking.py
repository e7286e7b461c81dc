"""Takes up a bundle in processes that are killed, each one step later than the one before.

Run with the bundle and a directory for the volumes. Each volume is left as the kill left it, in `1`, `2` and so on; the
last one was not reached by its kill.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tenure_sidecar.bundle.staging import Staging
from tenure_sidecar.journal.restoration import Restoration
from unit.sidecar.bundle.histories import Place, take

STEPS: list[tuple[Any, str]] = [
    (Restoration, "add"),
    (Restoration, "commit"),
    (Staging, "begin"),
    (Staging, "write"),
    (Staging, "end"),
    (Staging, "sync"),
    (Staging, "move_in"),
    (Staging, "_move"),
    (Staging, "clear"),
    (os, "rename"),
]


def dying(count: int) -> None:
    """Have this process killed before the step of this number, of all steps that change something."""
    left = [count]

    def guarded(step: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*args, **kwargs)

        return call

    for owner, name in STEPS:
        setattr(owner, name, guarded(getattr(owner, name)))


def main() -> None:
    data, directory = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
    count, killed = 0, True
    while killed:
        count += 1
        child = os.fork()
        if child == 0:
            place = Place(directory / str(count), "two")
            (place.workspace / "reports").write_text("in the way")
            dying(count)
            take(place, data)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status)
        if not killed and os.WEXITSTATUS(status) != 0:
            sys.exit(1)


if __name__ == "__main__":
    main()
