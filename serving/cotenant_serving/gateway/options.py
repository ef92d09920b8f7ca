"""The gateway's command line, and the line with which it starts its own workers."""

import argparse
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cotenant_serving.gateway.settings import Settings

MAX_WORKERS = 63
# In the state directory; table.json is there too.
USAGE_FILE, JOURNALS, METRICS = "usage.jsonl", "journals", "metrics"
KEPT_CONFIG = "gateway.json"
USAGE_SENDING, USAGE_CURSOR = "usage.sending.jsonl", "usage-sent.json"


@dataclass(frozen=True, slots=True)
class Options:
    """What the user gives."""

    config: Path
    host: str
    port: int
    state: Path
    workers: int
    settings: Settings
    operator: str = ""
    """Base URL; empty where there is none, as on one machine."""
    pool_token_file: Path | None = None
    """Set where `operator` is; it wins over the one that the configuration names."""
    name: str = ""
    """Of this gateway, where several send their usage to one place."""
    admin_port: int | None = None
    """For health and metrics, which are on `port` without it."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker gets from its supervisor: which one it is, and open files by their numbers."""

    worker: int
    """0 to workers - 1; a worker that replaces a dead one has the same number."""
    parent: int
    """Process id of the supervisor: without it a worker drains and ends."""
    gateway: str
    """Random per supervisor: with the worker's number, its name at the conductors."""
    listener: int
    board: int
    ready: int
    """A pipe; one byte, the worker's number, says that it accepts connections."""
    config: int = -1
    """Memory with the configuration (`config_source.SharedSource`); -1: it is in the file that the user gives."""
    admin: int = -1
    """Listens for health and metrics, for all workers; -1: they are on `listener`."""
    wakes: tuple[int, ...]
    """An event file of each worker: writing to it wakes that worker's dispatcher."""

    def argument(self) -> str:
        return f"--place={msgspec.json.encode(self).decode()}"


def parse_options(arguments: Sequence[str] | None = None) -> Options:
    parser = _parser("cotenant_serving.gateway")
    given = parser.parse_args(arguments)
    if given.operator and given.pool_token_file is None:
        parser.error("--operator asks with the pool token: name its file with --pool-token-file")
    return _options(given)


def parse_worker(arguments: Sequence[str] | None = None) -> tuple[Options, Place]:
    """As `parse_options`, with the supervisor's addition."""
    parser = _parser("cotenant_serving.gateway.worker")
    parser.add_argument("--place", required=True, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    return _options(given), msgspec.json.decode(given.place, type=Place)


def _parser(program: str) -> argparse.ArgumentParser:
    default = Settings()
    parser = argparse.ArgumentParser(prog=program, description="The cotenant gateway.")
    parser.add_argument("--config", type=Path, required=True, help="GatewayConfig file; re-read when it changes")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one")
    parser.add_argument("--state", type=Path, required=True, help="directory for usage, table and what workers share")
    parser.add_argument(
        "--workers",
        type=_count_up_to(MAX_WORKERS),
        default=1,
        metavar="N",
        help="processes that serve the port together; limits and counts hold over all of them (default 1)",
    )
    for name, seconds, help_ in (
        ("request-timeout", default.request_timeout_s, "seconds from admission to the last byte"),
        ("hold-timeout", default.hold_timeout_s, "seconds that a request may wait for an engine"),
        ("waiting-comment-after", default.comment_after_s, "period of comments on a stream that waits, seconds"),
        ("hang-timeout", default.hang_timeout_s, "seconds that a begun answer may stand still at a missed engine"),
        ("body-timeout", default.body_timeout_s, "seconds that a body may take to arrive"),
        ("drain-timeout", default.drain_timeout_s, "seconds that running requests get after SIGTERM"),
        ("pre-stop-s", default.pre_stop_s, "seconds after SIGTERM in which all is served, but not ready any more"),
    ):
        parser.add_argument(f"--{name}", type=float, default=seconds, help=f"{help_} (default {seconds:g})")
    parser.add_argument("--max-body-bytes", type=int, default=default.max_body_bytes)
    parser.add_argument(
        "--max-connections",
        type=_count_up_to(100_000),
        default=default.max_connections,
        metavar="N",
        help="connections at a time, idle and health checks included; one more gets a 503 with Retry-After: 1 and is "
        f"closed (default {default.max_connections})",
    )
    parser.add_argument(
        "--max-connections-per-tenant",
        type=_count_up_to(100_000),
        metavar="N",
        help="those that one tenant may hold; one more gets a 429 and is closed (default: half of all)",
    )
    _add_cluster(parser)
    return parser


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    """What a gateway of several needs."""
    parser.add_argument(
        "--operator",
        type=_base_url,
        metavar="URL",
        help="follow the configuration there, beside the file: the higher generation holds; and send usage to it",
    )
    parser.add_argument(
        "--pool-token-file", type=Path, help="needed with --operator; wins over the one that the configuration names"
    )
    parser.add_argument(
        "--name", default=socket.gethostname(), help="of this gateway among several (default: the host's name)"
    )
    parser.add_argument(
        "--admin-port",
        type=int,
        metavar="PORT",
        help="health and metrics there, on the same host, and metrics nowhere else (default: on --port)",
    )


def _options(given: argparse.Namespace) -> Options:
    settings = Settings(
        request_timeout_s=given.request_timeout,
        hold_timeout_s=given.hold_timeout,
        comment_after_s=given.waiting_comment_after,
        hang_timeout_s=given.hang_timeout,
        body_timeout_s=given.body_timeout,
        drain_timeout_s=given.drain_timeout,
        pre_stop_s=given.pre_stop_s,
        max_body_bytes=given.max_body_bytes,
        max_connections=given.max_connections,
        max_connections_per_tenant=given.max_connections_per_tenant or max(1, given.max_connections // 2),
    )
    return Options(
        config=given.config,
        host=given.host,
        port=given.port,
        state=given.state,
        workers=given.workers,
        settings=settings,
        operator=given.operator or "",
        pool_token_file=given.pool_token_file,
        name=given.name,
        admin_port=given.admin_port,
    )


def _base_url(text: str) -> str:
    if not text.startswith("http://"):
        raise argparse.ArgumentTypeError(f"{text!r} is no URL such as http://cotenant-operator:8600")
    return text.rstrip("/")


def _count_up_to(most: int) -> Callable[[str], int]:
    def count(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {most}")
        return int(text)

    return count
