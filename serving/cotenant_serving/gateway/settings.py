"""What a gateway can be told when it starts. Pure."""

from dataclasses import dataclass

from cotenant_serving.contract import REQUEST_TIMEOUT_S

GRACE_S = 15.0
"""What a worker gets beyond the drain's time-out: for streams' last words, its last report and its spans."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in seconds."""

    request_timeout_s: float = REQUEST_TIMEOUT_S
    """Admission to last byte."""
    hold_timeout_s: float = 120.0
    """How long a request may wait for an engine."""
    comment_after_s: float = 10.0
    """A stream held so long begins with waiting comments, if the engine's arrival is known; and their period."""
    hang_timeout_s: float = 15.0
    """How long a begun answer may stand still while the conductor misses its engine, which may be back until then."""
    body_timeout_s: float = 30.0
    """Headers to the last byte of the body."""
    drain_timeout_s: float = 20.0
    """SIGTERM to cutting what still runs."""
    pre_stop_s: float = 0.0
    """SIGTERM to the beginning of the drain: not ready, but all is served, connections to their next answer. Whoever
    sends clients here needs so long to see it."""
    max_body_bytes: int = 4 << 20
    max_connections: int = 4096
    """Client connections at a time, idle ones included, over all workers; one more is answered 503 and closed."""

    max_connections_per_tenant: int = 2048
    """Those that showed its key last; one more is answered 429 and closed."""

    @property
    def ended_within_s(self) -> float:
        """From SIGTERM; a worker that takes longer is killed."""
        return self.drain_timeout_s + GRACE_S
