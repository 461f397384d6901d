"""Log lines for people or for machines, each with the request it belongs to."""

from __future__ import annotations

import json
import logging
import re
import secrets
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

_REQUEST: ContextVar[str | None] = ContextVar("request", default=None)
_SANE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,63}")

# What a LogRecord has anyway; anything else was given as `extra`.
_COMMON = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "highlevel"}


def request_id() -> str | None:
    """The id of the request that is being answered; None outside of one."""
    return _REQUEST.get()


def enter_request(offered: str | None) -> str:
    """Name the request that begins in this context.

    Parameters
    ----------
    offered : str, optional
        What the caller or a proxy calls it; taken if it is 8 to 64 letters, digits,
        ``.``, ``_`` and ``-``, since it is written to logs and headers.
    """
    name = offered if offered and _SANE.fullmatch(offered) else secrets.token_hex(8)
    _REQUEST.set(name)
    return name


class TextFormatter(logging.Formatter):
    """``2026-11-23 22:38:50Z WARNING era_hub [3f1c...] the message``, in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        request = _REQUEST.get()
        mark = f" [{request}]" if request else ""
        return f"{_when(record):%Y-%m-%d %H:%M:%SZ} {record.levelname} {record.name}{mark} {text}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _when(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := _REQUEST.get():
            line["request"] = request
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        for key, value in vars(record).items():
            if key not in _COMMON and not key.startswith("_"):
                line[key] = value
        return json.dumps(line, default=str, ensure_ascii=False)


FORMATTERS: dict[str, type[logging.Formatter]] = {"text": TextFormatter, "json": JsonFormatter}


def logging_config(style: str, level: Any, name: str) -> dict[str, Any]:
    """For `logging.config.dictConfig`: all loggers write to standard error in one style.

    Parameters
    ----------
    style : {"text", "json"}
    level : int or str
        Of the application; what others have to say counts from INFO on.
    name : str
        The application's logger.
    """
    formatter = FORMATTERS[style]
    number = level if isinstance(level, int) else logging.getLevelNamesMapping()[level]
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"era": {"()": f"{formatter.__module__}.{formatter.__name__}"}},
        "handlers": {
            "era": {
                "class": "logging.StreamHandler",
                "formatter": "era",
                "stream": "ext://sys.stderr",
            }
        },
        "root": {"level": max(number, logging.WARNING), "handlers": ["era"]},
        "loggers": {name: {"level": number, "handlers": ["era"], "propagate": False}},
    }


def _when(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)
