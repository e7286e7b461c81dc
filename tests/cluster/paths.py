"""Where things are: the checkout, what is kept between runs, and what belongs to the running cluster.

Three places with three lives: the cache outlives checkouts (binaries cost minutes to build), `build/cluster`
lives as long as a cluster, and `/run/tenure-cluster` tells any checkout what is running on this machine.
"""

from __future__ import annotations

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
STATE = CHECKOUT / "build" / "cluster"
RUN = Path("/run/tenure-cluster")  # short: a socket's path may have 107 bytes


def cache() -> Path:
    """The folder that outlives clusters and checkouts; `TENURE_CACHE` moves it."""
    named = os.environ.get("TENURE_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tenure"
