"""The process `tenure-runtime`: listens first, and loads then what it serves with.

To load the openai SDK takes about half a second of CPU. The kubelet asks at once whether the container is ready, and
if it does not listen yet, only a second later again. So the socket is open before anything large is imported; a request
that comes in between waits for that half second and is not refused.
"""

import logging
import os
import signal
import socket
import sys

from tenure_runtime.settings import Settings, SettingsError

_BACKLOG = 128


def main() -> None:
    """Serves until it is told to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the first process of a container has no default
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = Settings.read(os.environ)
    except SettingsError as error:
        sys.exit(f"tenure-runtime: {error}")
    # All addresses, since the kubelet's probe comes from outside; the NetworkPolicy and the token guard it.
    listener = socket.create_server(("0.0.0.0", settings.port), backlog=_BACKLOG)  # noqa: S104
    from tenure_runtime.server import serve

    serve(settings, listener)


if __name__ == "__main__":
    main()
