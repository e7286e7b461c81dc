"""The processes of the container: every one of them ends with the call that began it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import struct
import time

from tenure_executor.errors import CannotServe
from tenure_executor.walls import libc

PATIENCE = 10.0
"""Seconds for killed processes to be gone."""


class Processes:
    """All processes of the container, seen from the first one. Needs to be that one, with a single thread."""

    def __init__(self) -> None:
        if os.getpid() != 1:
            raise CannotServe("it must be the first process of a container: it ends all others after every call")
        watched = (signal.SIGCHLD, signal.SIGTERM)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # which the first process does not feel if it comes from inside
        signal.pthread_sigmask(signal.SIG_BLOCK, watched)
        mask = bytearray(128)
        for number in watched:
            mask[(number - 1) // 8] |= 1 << (number - 1) % 8
        self.signals: int = libc.signalfd(-1, bytes(mask), os.O_CLOEXEC | os.O_NONBLOCK)
        """A descriptor that is readable when `heed` has something to do."""
        if self.signals < 0:
            raise CannotServe(f"signals cannot be read: {os.strerror(ctypes.get_errno())}")
        self._watched = 0
        self.status: int | None = None
        """How the watched process has ended, as `os.waitpid` says."""
        self.ending = False
        """The container is to end."""

    def watch(self, pid: int) -> None:
        """Whose end is of interest."""
        self._watched, self.status = pid, None

    def heed(self) -> None:
        """Takes note of signals."""
        with contextlib.suppress(BlockingIOError):
            while True:
                number, _, _, sender = struct.unpack_from("=IiiI", os.read(self.signals, 128))
                if number == signal.SIGTERM and sender == 0:  # from outside of the container
                    self.ending = True
        self._reap()

    def _reap(self) -> bool:
        """Takes leave of processes that have ended. Whether there are others."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._watched:
                self.status = status

    def end_all(self) -> None:
        """Kills all but this one. Raises `CannotServe` if one does not end."""
        end = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)  # at one stroke: a process that has a signal to die of cannot fork
            if not self._reap():
                return
            if time.monotonic() > end:
                raise CannotServe("a process of the last call cannot be killed")
            select.select([self.signals], [], [], 0.01)
            self.heed()
