"""Logs as AMCT's: levels from the environment, its line format, and a file only where one is asked for.

`AMCT_LOG_LEVEL` shows amct_lite's log on the terminal from that level on, `AMCT_LOG_FILE_LEVEL` writes it to
./amct_log/amct_lite.log; both are one of debug, info, warning, error. Where neither is set amct_lite logs as any
library does, through the loggers below "amct_lite", and writes no file. (AMCT writes both from level info on, always.)
"""

from __future__ import annotations  # old Pythons import this on the way to caffe_layers

import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["LOG_FILE", "follow_environment", "logged_call"]

LOG_FILE = Path("amct_log", "amct_lite.log")
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_FORMAT = "%(asctime)s - %(levelname)s - [AMCT]:[%(module)s]: %(message)s"
_logger = logging.getLogger("amct_lite")


class _LogFile(logging.FileHandler):
    """Makes its folder with the first line, so that a run that logs nothing leaves nothing."""

    def _open(self) -> Any:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()


def follow_environment() -> None:
    """Set up what `AMCT_LOG_LEVEL` and `AMCT_LOG_FILE_LEVEL` ask for; `import amct_lite` does it."""
    handlers: list[logging.Handler] = []
    for variable in ("AMCT_LOG_LEVEL", "AMCT_LOG_FILE_LEVEL"):
        level = _level(variable)
        if level is None:
            continue
        handler = (
            logging.StreamHandler()
            if variable == "AMCT_LOG_LEVEL"
            else _LogFile(LOG_FILE, encoding="utf-8", delay=True)
        )
        handler.setLevel(level)
        handler.setFormatter(logging.Formatter(_FORMAT))
        handlers.append(handler)
    if not handlers:
        return
    _logger.handlers[:] = handlers
    _logger.setLevel(min(handler.level for handler in handlers))
    _logger.propagate = False


@contextmanager
def logged_call(verb: str) -> Iterator[None]:
    """Log AMCT's banner around a verb: its name, and in the end how long it took."""
    started = time.monotonic()
    try:
        yield
    finally:
        minutes, seconds = divmod(time.monotonic() - started, 60)
        hours, minutes = divmod(int(minutes), 60)
        line = "*" * 60
        _logger.info("%s", line)
        _logger.info("#>Func name: %s", verb)
        _logger.info("#>Cost time: %d hours, %d minutes, %.2f seconds", hours, minutes, seconds)
        _logger.info("%s", line)


def _level(variable: str) -> int | None:
    text = os.environ.get(variable)
    if text is None:
        return None
    level = _LEVELS.get(text.strip().lower())
    if level is None:
        warnings.warn(f"{variable} must be one of {', '.join(_LEVELS)}. Got {text!r}; info is used.", stacklevel=4)
        return logging.INFO
    return level
