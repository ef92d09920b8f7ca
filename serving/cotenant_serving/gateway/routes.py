"""Which paths go to engines: the tasks that serve each, how its body is read, and what it costs on entry. Pure.

The paths are the same at gateway and engine. What does not stand here is answered by `pages`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from cotenant_serving import oip_api, openai_api, pooling_api
from cotenant_serving.contract import HEADER_JSON_LENGTH, Task
from cotenant_serving.contract_gateway import GatewayModel
from cotenant_serving.gateway.admission import estimated_tokens
from cotenant_serving.gateway.errors import error
from cotenant_serving.usual_requests import Asked, usual_chat, usual_completion

Action = Literal["metadata", "infer", "ready"]
_LENGTH = HEADER_JSON_LENGTH.encode()
JSON_FIELDS = {"content-type": "application/json"}
"""Headers that go on to an engine with JSON."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a path of the Open Inference Protocol names. `version` is empty when it names none."""

    model: str
    version: str
    action: Action

    def check_version(self) -> None:
        """Raises RequestError (404)."""
        if self.version not in ("", oip_api.MODEL_VERSION):
            raise error("model_version_not_found", f"Model '{self.model}' has no version '{self.version[:40]}'.")


class Incoming(msgspec.Struct, frozen=True):
    """A request whose body is read. Names of headers are in lower case."""

    headers: Iterable[tuple[bytes, bytes]]
    body: bytes
    target: Target | None = None


class Wanted(msgspec.Struct, frozen=True):
    """What a request asks for, as far as the gateway must know, and what of it goes on to an engine."""

    model: str
    body: bytes
    stream: bool = False
    prompt_tokens: int = 0
    """Estimated. 0 where requests are not measured in tokens."""
    tokens: int = 0
    """Charged on entry, by estimate."""
    headers: Mapping[str, str] = msgspec.field(default_factory=lambda: JSON_FIELDS)


@dataclass(frozen=True, slots=True)
class Route:
    """One path and its one method. `shown` is the path as people read it."""

    shown: str
    method: str
    tasks: frozenset[Task]
    read: Callable[[Incoming], Wanted]
    binary: bool = False
    """Whether tensors in binary may follow the JSON of its body."""
    usual: Callable[[bytes], Asked | None] | None = None
    """Reads quickly what most clients send; None for a body that `read` must judge."""


def find(path: str) -> tuple[Route, Target | None] | None:
    """The route of a path and what it names; None for a path that is not an engine's."""
    route = _BY_PATH.get(path)
    if route is not None:
        return route, None
    target = oip_target(path)
    if target is None or target.action == "ready":
        return None
    return (INFER if target.action == "infer" else METADATA), target


def oip_target(path: str) -> Target | None:
    """`/v2/models/NAME[/versions/V][/infer|/ready]`, where NAME is `name` or `namespace/name`."""
    match = _OIP.fullmatch(path)
    if match is None:
        return None
    return Target(match["model"], match["version"] or "", match["action"] or "metadata")  # type: ignore[arg-type]


def check_task(route: Route, model: GatewayModel) -> None:
    """Raises RequestError (400) that names the routes for the model's task.

    While nobody knows the task any route will do: what keeps the model from being read is the answer then.
    """
    if model.task is None or model.task in route.tasks:
        return
    serving = [other.shown for other in ROUTES if model.task in other.tasks and other is not METADATA]
    raise error(
        "wrong_task",
        f"Model '{model.name}' has task {model.task}, which {route.shown} does not serve.",
        step=f"Use {' or '.join(serving)}." if serving else None,
        param="model",
    )


def announces_binary(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name == _LENGTH for name, _ in headers)


def _generating(
    usual: Callable[[bytes], Asked | None], parse: Callable[[bytes], openai_api.GenerateRequest]
) -> Callable[[Incoming], Wanted]:
    def read(incoming: Incoming) -> Wanted:
        body = incoming.body
        asked = usual(body)
        if asked is None:
            request = parse(body)
            asked = Asked(request.model, request.stream, request.sampling.max_tokens)
        model, stream, max_tokens = asked
        size = len(body)
        return Wanted(model, body, stream, size // 4, estimated_tokens(size, max_tokens), JSON_FIELDS)

    return read


def _pooling(parse: Callable[[bytes], pooling_api.PoolingRequest]) -> Callable[[Incoming], Wanted]:
    def read(incoming: Incoming) -> Wanted:
        request = parse(incoming.body)
        tokens = estimated_tokens(len(incoming.body) + request.repeated_chars, 0)
        return Wanted(request.model, incoming.body, prompt_tokens=tokens, tokens=tokens)

    return read


def _infer(incoming: Incoming) -> Wanted:
    assert incoming.target is not None
    given = [value.decode("latin-1") for name, value in incoming.headers if name == _LENGTH]
    length = oip_api.parse_json_length(", ".join(given) if given else None, len(incoming.body))
    oip_api.parse_infer(incoming.body, length)
    if length is None:
        return Wanted(incoming.target.model, incoming.body)
    headers = {"content-type": "application/octet-stream", HEADER_JSON_LENGTH: str(length)}
    return Wanted(incoming.target.model, incoming.body, headers=headers)


def _metadata(incoming: Incoming) -> Wanted:
    assert incoming.target is not None
    return Wanted(incoming.target.model, b"", headers={})


_GENERATE: frozenset[Task] = frozenset({"generate", "echo"})
_RERANK: frozenset[Task] = frozenset({"rerank"})
_TENSORS: frozenset[Task] = frozenset({"embed", "tensor"})
INFER = Route("/v2/models/{model}/infer", "POST", _TENSORS, _infer, binary=True)
METADATA = Route("/v2/models/{model}", "GET", _TENSORS, _metadata)
ROUTES = (
    Route(
        "/v1/chat/completions", "POST", _GENERATE, _generating(usual_chat, openai_api.parse_chat), usual=usual_chat
    ),
    Route(
        "/v1/completions",
        "POST",
        _GENERATE,
        _generating(usual_completion, openai_api.parse_completion),
        usual=usual_completion,
    ),
    Route("/v1/embeddings", "POST", frozenset({"embed"}), _pooling(pooling_api.parse_embeddings)),
    Route("/v1/rerank", "POST", _RERANK, _pooling(pooling_api.parse_rerank)),
    Route("/v1/score", "POST", _RERANK, _pooling(pooling_api.parse_score)),
    Route("/v1/classify", "POST", frozenset({"classify"}), _pooling(pooling_api.parse_classify)),
    INFER,
    METADATA,
)
_BY_PATH = {route.shown: route for route in ROUTES if "{" not in route.shown}
# The second part of a name comes last: `a/infer` is an action on `a`, and `a/versions/1` a version of it.
_OIP = re.compile(
    r"/v2/models/(?P<model>[^/]+(?:/[^/]+)??)(?:/versions/(?P<version>[^/]+))?(?:/(?P<action>infer|ready))?"
)
