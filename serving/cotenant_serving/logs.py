"""Log lines as JSON on stderr: time, level, logger, message, and what else there is to say about the event.

`extra={"fields": {...}}` of a log call adds fields; docs/observability.md lists them.
"""

import logging
import sys
import time

import msgspec


class JsonFormatter(logging.Formatter):
    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._always = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._always,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def log_to_stderr(worker: int | None = None) -> None:
    """For the process's composition root only. `worker`: its number, if the process is one."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(worker))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # It repeats what we say ourselves, and says "Uvicorn running" without the address that was asked for.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    for client in ("httpx", "httpx2"):  # they log addresses whole
        logging.getLogger(client).setLevel(logging.WARNING)
    logging.captureWarnings(True)
