"""A cluster of plain processes on this machine, for where no container engine is to be had."""

from __future__ import annotations

from .provider import Local, build_binaries

__all__ = ["Local", "build_binaries"]
