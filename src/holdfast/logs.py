"""What operators read: one line for each transition of a run, and the run's id on the user's own lines.

All lines of ours go to the logger ``holdfast`` and begin with the run (or session) they are about. Where the filter
is not installed nothing else happens; logging never stands in for raising."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from .branches import current_frame
from .errors import NotInRun

_logger = logging.getLogger("holdfast")


class RunLog(logging.LoggerAdapter[logging.Logger]):
    """The log lines about one run, or one session."""

    def __init__(self, id: str, kind: str = "run") -> None:
        super().__init__(_logger, {"run_id": id})
        self._prefix = f"{kind} {id}: ".replace("%", "%%")

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return self._prefix + msg, {**kwargs, "extra": self.extra}


class LogFilter(logging.Filter):
    """Gives every log record the attributes ``run_id`` and ``step``: where the code that logs is, "" outside of runs.

    Add it to a handler, so that it sees the records of every logger, and name the two in the handler's format::

        handler.addFilter(holdfast.LogFilter())
        handler.setFormatter(logging.Formatter("%(asctime)s %(run_id)s %(step)s %(message)s"))
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true: it adds, and drops nothing."""
        try:
            frame = current_frame()
        except NotInRun:  # a call would have no place here, but a log line needs none
            frame = None
        if not hasattr(record, "run_id"):
            record.run_id = "" if frame is None else frame.run.id
        record.step = "" if frame is None or frame.step is None else frame.step.row.name
        return True
