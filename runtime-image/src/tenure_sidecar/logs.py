"""Logs as one JSON object on each line."""

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime


class JsonFormatter(logging.Formatter):
    """Time, level, logger, message, session, and the traceback if there is one."""

    def __init__(self, session: Callable[[], str]) -> None:
        """`session` is asked for every line: a sidecar that was started ahead gets its session later."""
        super().__init__()
        self._session = session

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "session": self._session(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(session: Callable[[], str]) -> None:
    """Write all logs of the process to standard output; `session` names the session."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(session))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
