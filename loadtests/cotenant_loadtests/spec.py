"""A scenario: who sends what to which endpoint, when, and what must hold. The schema of `scenarios/*.yaml`; pure."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from cotenant_loadtests.spec_values import Amounts, Arrivals, AtLeastZero, Choice, Positive, Strict

Api = Literal["chat", "completions", "embeddings", "oip"]
Check = Literal["none", "shape", "echo"]
Datatype = Literal["BOOL", "UINT8", "INT8", "INT16", "INT32", "INT64", "FP32", "FP64"]
Ratio = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Target(Strict):
    url: str = "http://127.0.0.1:8080"
    """Scheme, host and port; a path is put before those of the APIs."""
    ca_file: str | None = None
    """PEM file of the authority that signed an https target's certificate. Default: the system's."""
    verify_tls: bool = True
    """`false` takes any certificate."""


class KeySource(Strict):
    """Where a tenant's API key comes from; exactly one. A key never stands in a scenario."""

    env: str | None = None
    """Name of the environment's variable that holds it."""
    file: str | None = None
    """File that holds it and nothing else, beside the scenario; `~` is the home directory."""


class TenantSpec(Strict):
    key: KeySource | None = None
    """Absent: a key made for this run where `cotenant up` runs on this machine, else no key is sent."""


class SharedPrefix(Strict):
    """A beginning that prompts have in common, as system prompts are."""

    tokens: Amounts
    """How long each of them is."""
    groups: Count = 1
    """How many different ones there are; each request draws one."""


class PromptSpec(Strict):
    """Words of a fixed list, one token each for most tokenizers; or the lines of a file."""

    tokens: Amounts | None = None
    """How long: words drawn from the seed, without the shared prefix. This or `file`."""
    file: str | None = None
    """Beside the scenario; a text per line, or in `.jsonl` objects with `prompt` and perhaps `output_tokens`.

    Each stream sends the lines in turn, from the first again after the last.
    """
    shared_prefix: SharedPrefix | None = None
    """A beginning that prompts have in common: in chat the system message, else the prompt's first words."""
    inputs: Count = 1
    """Texts in each embeddings request."""


class OutputSpec(Strict):
    tokens: Amounts
    """`max_tokens` of the request."""


class ConversationSpec(Strict):
    """Each arrival is a conversation. A turn has all before it as history, and comes `think_s` after its end."""

    turns: Amounts
    """Requests of one conversation."""
    think_s: Amounts
    """Pause between the end of an answer and the next turn."""


class OipInput(Strict):
    name: str
    """Of the model's input."""
    datatype: Datatype
    """Open Inference Protocol's name of the type."""
    shape: Annotated[tuple[Count, ...], Field(min_length=1)]
    """With the batch, if the model has one."""


class StreamSpec(Strict):
    """One stream of requests."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
    """Of the same letters as the scenario's name. What it is called in plans and errors."""
    tenant: Choice
    """Whose requests they are: the tenant's key is sent. Results are by tenant."""
    model: Choice
    """As the `model` of a request has it."""
    api: Api = "chat"
    """OpenAI's chat completions, completions or embeddings, or Open Inference Protocol."""
    arrivals: Arrivals
    """When requests (or conversations) come: [arrivals](#arrivals)."""
    prompt: PromptSpec | None = None
    """What is asked; needed but for `oip`."""
    output: OutputSpec | None = None
    """Absent: no `max_tokens` is sent, the server decides; a conversation needs it."""
    conversation: ConversationSpec | None = None
    """Several turns, each with those before as its history; `chat` only."""
    inputs: tuple[OipInput, ...] = ()
    """Of `oip`: tensors with values drawn from the seed."""
    streamed: bool = True
    """Server-sent events; chat and completions only."""
    include_usage: bool = True
    """Ask for `stream_options: {include_usage: true}`."""
    cancel_after_tokens: Count | None = None
    """Hang up once so many tokens have come."""
    deadline_s: Positive = 60.0
    """From the scheduled time; an answer that is not whole by then is a `timeout`."""
    from_s: AtLeastZero = 0.0
    """Where in the run the stream begins."""
    to_s: Positive | None = None
    """Where it ends. Default: with the run."""
    check: Check = "shape"
    """`shape`: JSON, events, `[DONE]`, usage. `echo`: also every word and the checksum, of cotenant's echo engine.

    With `echo`, the model must be the very name that was asked, and not even a comment may follow the end.
    """
    body: Mapping[str, Any] = {}
    """Further fields of the request's body, as they are: `{temperature: 0, ignore_eos: true}`.

    No secret belongs here: they stand in `results.json` and in `plan.jsonl`.
    """


class Goodput(Strict):
    """A request is good when it succeeded within all of these."""

    ttft_ms: Positive | None = None
    """From scheduled to the first token."""
    tpot_ms: Positive | None = None
    """Each further token, on average."""
    e2e_ms: Positive | None = None
    """From scheduled to the end."""


class Limits(Strict):
    """Bounds of a run, checked on the plan before it starts (`bytes`: also while it runs)."""

    requests: Count = 200_000
    """Of the whole plan."""
    rate_per_s: Positive = 2_000.0
    """Most requests due within one second; turns of conversations as if answers took no time."""
    duration_s: Positive = 14_400.0
    """Of the schedule."""
    connections: Count = 6_000
    """Open at a time; a request that finds none free waits, and its latency with it."""
    bytes: Count = 20_000_000_000
    """Sent and received together. The run ends within about a second of reaching it."""


class Observe(Strict):
    """What is sampled on the server's side during the run."""

    metrics_url: str | None = None
    """Prometheus text; it stands in the report beside what clients saw. Default, with `metrics` or `table` (and in
    `soak`, for the memory): `/metrics` of the target. Without any of them nothing is asked.

    Without a query. Another host than the target's is named with `--i-may-load-this` too.
    """
    metrics: tuple[str, ...] = ()
    """Names or beginnings of names (`cotenant_`). Empty: what is known of cotenant, vLLM and Triton."""
    table: bool = False
    """cotenant's engines per model over time, read off the metrics of its gateway."""
    interval_s: Annotated[float, Field(ge=0.2)] = 1.0
    """Between two samples. A long run keeps fewer of them."""


Limit = AtLeastZero | Mapping[str, AtLeastZero]
"""A number for the whole run, or for each `tenant` or `tenant/model` by name."""


class Scenario(Strict):
    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
    """Stands in the results and in the name of their folder. Up to 63 of `a-z`, `0-9` and `-`; no `-` at an end."""
    about: str = ""
    """What it shows; stands on top of the report."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    """Equal scenarios with equal seeds send the same bytes at the same times."""
    target: Target = Target()
    """Where to send it."""
    tenants: Mapping[str, TenantSpec] = {}
    """Of the tenants that streams name, those that need something said about them."""
    duration_s: Positive = 60.0
    """Requests are scheduled within it."""
    warmup_s: AtLeastZero = 0.0
    """Requests scheduled in the first so many seconds are sent but not measured."""
    cooldown_s: AtLeastZero = 0.0
    """Nor are those of the last so many seconds."""
    drain_s: AtLeastZero = 30.0
    """How long to wait for answers after that; what has not ended then is `unfinished`."""
    processes: Count = 1
    """Worker processes that send; one is enough for about one core's worth."""
    streams: Annotated[tuple[StreamSpec, ...], Field(min_length=1)]
    """Who sends what; all of them at the same time."""
    goodput: Goodput | None = None
    """What makes a request good; absent: that it succeeded."""
    slo: Mapping[str, Limit] = {}
    """Limits by name, for the whole run or by tenant: [SLOs](#the-gate-and-ci)."""
    limits: Limits = Limits()
    """Bounds of the run."""
    observe: Observe = Observe()
    """What is asked of the server meanwhile."""
