"""Load for the benchmarks of the product: plans made by hand, sent by the load test's own worker process."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cotenant_loadtests.planned import Message, Planned, Segment
from cotenant_loadtests.running import run_plan
from cotenant_loadtests.spec import Scenario

TENANT = "search"
DIFFERENT_PROMPTS = 64
PATIENCE_S = 600.0
"""For all of a plan; a run ends with its last answer."""


@dataclass(frozen=True)
class Sent:
    """`wall_s`: from when the first request was due to the end of the last; without the start of the worker."""

    requests: int
    completion_tokens: int
    wall_s: float


def at_once(model: str, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[Planned]:
    """One streamed completion for each prompt of token ids, all due at 0."""
    return [
        Planned(
            id=number,
            at_s=0.0,
            stream="at-once",
            tenant=TENANT,
            model=model,
            api="completions",
            messages=(Message(role="user", text=""),),
            max_tokens=max_tokens,
            streamed=True,
            include_usage=True,
            deadline_s=PATIENCE_S,
            body={"prompt": list(prompt), "temperature": 0},
        )
        for number, prompt in enumerate(prompts)
    ]


def _in_turn(number: int, callers: int) -> dict[str, Any]:
    """Of a request that a caller sends when its last one is answered."""
    first = number < callers
    after = {"at_s": 0.0, "after": None} if first else {"at_s": None, "after": number - callers}
    return {"id": number, "stream": "callers", "tenant": TENANT, **after}


def by_callers(model: str, texts: Sequence[str], callers: int) -> list[Planned]:
    """One embeddings request for each text. Each caller has every so-manyth text, and asks as it is answered."""
    return [
        Planned(
            **_in_turn(number, callers),
            model=model,
            api="embeddings",
            messages=(Message(role="user", text=text),),
            deadline_s=PATIENCE_S,
        )
        for number, text in enumerate(texts)
    ]


def chats_by_callers(
    model: str, requests: int, callers: int, *, prompt_tokens: int, max_tokens: int, streamed: bool
) -> list[Planned]:
    """Chats of DIFFERENT_PROMPTS in turn. Each caller has every so-manyth, and asks as it is answered.

    The answers must be those of an echo engine, word for word, with usage.
    """
    prompts = [
        (Message(role="user", segments=(Segment(seed=seed, tokens=prompt_tokens),)),)
        for seed in range(DIFFERENT_PROMPTS)
    ]
    return [
        Planned(
            **_in_turn(number, callers),
            model=model,
            api="chat",
            messages=prompts[number % DIFFERENT_PROMPTS],
            max_tokens=max_tokens,
            streamed=streamed,
            include_usage=streamed,
            deadline_s=PATIENCE_S,
            check="echo",
        )
        for number in range(requests)
    ]


def send(url: str, key: str, plan: Sequence[Planned], folder: Path) -> Sent:
    """Blocks until all is answered. Raises RuntimeError when an answer was not whole and right."""
    output = run_plan(scenario(url), plan, {TENANT: key}, folder=folder)
    wrong = [record for record in output.records if record.outcome != "ok"]
    if wrong or len(output.records) != len(plan):
        first = f"{wrong[0].outcome} {wrong[0].status} {wrong[0].detail}" if wrong else "no record"
        raise RuntimeError(f"{len(plan) - len(output.records) + len(wrong)} of {len(plan)} answers failed: {first}")
    begun_us = min(record.scheduled_us for record in output.records)
    ended_us = max(record.end_us for record in output.records)
    tokens = sum(max(0, record.completion_tokens) for record in output.records)
    return Sent(len(plan), tokens, (ended_us - begun_us) / 1e6)


def scenario(url: str) -> Scenario:
    """Only what a plan does not say counts: the target, and how long to wait."""
    stream = {"name": "plan", "tenant": TENANT, "model": "by-the-plan"} | {
        "arrivals": {"process": "constant", "rate_per_s": 1}
    }
    return Scenario.model_validate(
        {"name": "benchmark", "target": {"url": url}, "duration_s": PATIENCE_S, "streams": [stream]}
    )
