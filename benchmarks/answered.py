"""What a load generator did in a window of time, from the answers that it recorded. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from cotenant_loadtests.ranks import at_percentile

ENOUGH = 20
"""Answers in a window below which a p99 says nothing."""


@dataclass(frozen=True)
class Answered:
    """One request; unix seconds. `due_s`: when it should have been sent; None in a closed loop."""

    due_s: float | None
    sent_s: float
    first_s: float
    """Its first token."""
    last_s: float
    """Its last token."""
    tokens: int


@dataclass(frozen=True)
class Window:
    """What went on from `from_s` to `to_s`, unix seconds."""

    from_s: float
    to_s: float
    requests: float
    """Answered within it."""
    tokens: float
    """Received within it."""
    lateness_p99_ms: float
    """From due to sent; in a closed loop from when the first token was due to when it was seen."""
    ttft_p99_ms: float

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / (self.to_s - self.from_s)

    @property
    def requests_per_s(self) -> float:
        return self.requests / (self.to_s - self.from_s)


def window_of(answers: Sequence[Answered], warmup_s: float, true_ttft_ms: float) -> Window:
    """From `warmup_s` after the first request was sent until the last one was. RuntimeError: too few answers."""
    begun = min(answer.sent_s for answer in answers) if answers else 0.0
    from_s, to_s = begun + warmup_s, max((answer.sent_s for answer in answers), default=0.0)
    within = [answer for answer in answers if from_s <= answer.sent_s < to_s]
    if len(within) < ENOUGH:
        raise RuntimeError(f"only {len(within)} answers after {warmup_s} s of warm-up")
    ttft_ms = [1000 * (answer.first_s - answer.sent_s) for answer in within]
    late_ms = [
        ttft - true_ttft_ms if answer.due_s is None else 1000 * (answer.sent_s - answer.due_s)
        for answer, ttft in zip(within, ttft_ms, strict=True)
    ]
    return Window(
        from_s,
        to_s,
        requests=sum(from_s <= answer.last_s < to_s for answer in answers),
        tokens=tokens_between(answers, from_s, to_s),
        lateness_p99_ms=at_percentile(late_ms, 99),
        ttft_p99_ms=at_percentile(ttft_ms, 99),
    )


def tokens_between(answers: Sequence[Answered], from_s: float, to_s: float) -> float:
    """Each answer's tokens come evenly from its first to its last one."""
    total = 0.0
    for answer in answers:
        lasted = answer.last_s - answer.first_s
        if lasted <= 0:
            total += answer.tokens if from_s <= answer.last_s < to_s else 0
        else:
            inside = min(answer.last_s, to_s) - max(answer.first_s, from_s)
            total += answer.tokens * max(0.0, inside) / lasted
    return total
