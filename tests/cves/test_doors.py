"""The doors of engines and conductor, and keys in memory: one secret for each purpose, and nothing without it."""

import ast
import random
import statistics
import string
import time
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from tests.builders.engine import chat_body, echo_args
from tests.builders.engine_app import send_to
from tests.builders.gateway import digest
from tests.builders.pickles import malicious_pickle

from cotenant_operator.state_dir import TOKENS, StateDir
from cotenant_serving.conductor.api import Api
from cotenant_serving.conductor.conductor import Conductor, Settings
from cotenant_serving.conductor.store import Store
from cotenant_serving.contract import EchoOptions
from cotenant_serving.engine.echo import EchoEngine
from cotenant_serving.engine.server import EngineServer
from cotenant_serving.engine.status import EngineStatus
from cotenant_serving.gateway.auth import Keyring, authenticate
from cotenant_serving.openai_api import RequestError

ROOT = Path(__file__).parents[2]
POOL, CONTROL = "p" * 64, "c" * 64
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "get", "PROPFIND")
_PATHS = """
/v1/chat/completions /v1/completions /v1/embeddings /v1/models /v1/requests/x /state /healthz /healthz/ /HEALTHZ
/healthz/../state //healthz /healthz;x /v2/models/team/m/infer /v2/models/team/m /invocations /pooling /score /pause
/resume /update_weights /collective_rpc /sleep /wake_up /reset_prefix_cache /server_info /load_lora_adapter /metrics
/flush_cache /generate /docs /openapi.json / x
"""
ENGINE_PATHS = _PATHS.split()


def engine_app() -> EngineServer:
    args = echo_args(model="team/m")
    status = EngineStatus(args, instance="me", host="127.0.0.1", port=8800)
    status.ready()
    return EngineServer(EchoEngine(EchoOptions(), args.spec.context_tokens), status, lambda: POOL)


WRONG = ("", "Bearer", "Bearer ", f"Bearer {POOL[:-1]}", f"Bearer {POOL}x", f"bearer {POOL}", f"Basic {POOL}", POOL)


@pytest.mark.parametrize("authorization", [*WRONG, f"Bearer {CONTROL}", f"Bearer  {POOL}", f"Bearer {digest(POOL)}"])
async def test_an_engine_answers_nothing_but_its_health_without_the_pools_token(authorization: str) -> None:
    """vLLM's --api-key guards /v1 alone: /invocations, /pooling, /score, /pause and /update_weights answer anybody
    who reaches the engine. Here the token comes before the route."""
    app = engine_app()
    answered = {}
    for method in METHODS:
        for path in ENGINE_PATHS:
            body = chat_body("hi") if method == "POST" else None
            exchange = await send_to(app, method, path, body, authorization=authorization).done()
            answered[method, path] = exchange.status
    assert answered.pop(("GET", "/healthz")) == 200
    assert set(answered.values()) == {401}
    opened = await send_to(app, "GET", "/state", authorization=f"Bearer {POOL}").done()
    assert opened.status == 200


async def conductor_answers(folder: Path, method: str, path: str, authorization: str, body: bytes = b"") -> int:
    api = Api(
        Conductor(Store(folder), Settings(url="x", pool_token_file="x")),
        pool_token=lambda: POOL,
        control_token=lambda: CONTROL,
    )
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    headers = [(b"authorization", authorization.encode())] if authorization else []
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers}
    await api(scope, receive, send)
    return int(sent[0]["status"])


CONDUCTOR = [
    *(("PUT", "/v1/desired", "control"), ("GET", "/v1/desired", "control"), ("GET", "/v1/status", "control")),
    *(("POST", "/v1/heartbeat", "pool"), ("POST", "/v1/demand", "pool"), ("GET", "/v1/table", "pool")),
]


@pytest.mark.parametrize(("method", "path", "opens"), CONDUCTOR)
async def test_each_route_of_the_conductor_takes_its_own_token_only(
    method: str, path: str, opens: str, tmp_path: Path
) -> None:
    """CVE-2026-114612 (one key in several domains), CVE-2025-0628 (a lesser role's key works for administration):
    what an engine holds does not change the desired state, and what `up` holds is no engine's heartbeat."""
    tokens = {"pool": POOL, "control": CONTROL, "none": "", "tenant": "key-of-search", "hash": digest(POOL)}
    allowed = {
        name
        for name, token in tokens.items()
        if await conductor_answers(tmp_path, method, path, f"Bearer {token}" if token else "") != 401
    }
    assert allowed == {opens}


def test_each_token_is_made_for_one_purpose(tmp_path: Path) -> None:
    """CVE-2026-114612: 256 random bits each, no two alike, none derived from another state directory's."""
    found = set()
    for name in ("one", "other"):
        state = StateDir(tmp_path / name)
        state.acquire()
        found |= {state.secret(token).read_text() for token in TOKENS}
        state.release()
    assert len(found) == 2 * len(TOKENS)
    assert all(len(token) == 64 and set(token) <= set(string.hexdigits) for token in found)


PICKLED = ("application/x-pickle", "application/python-pickle", "application/octet-stream", "application/json")


@pytest.mark.parametrize("content_type", PICKLED)
async def test_a_pickle_from_the_wire_is_bytes_that_are_no_json(content_type: str, tmp_path: Path) -> None:
    """CVE-2025-32444 (vLLM's Mooncake transfer: pickle over ZMQ), CVE-2026-115912 (a handle in shared memory goes to
    pickle.loads), SGLang's CVE-2026-3059 and its like: whoever has the token still cannot run code."""
    marker = tmp_path / "executed"
    evil = malicious_pickle(marker)
    to_engine = await send_to(
        engine_app(), "POST", "/v1/chat/completions", evil, authorization=f"Bearer {POOL}", content_type=content_type
    ).done()
    assert to_engine.status == 400
    for method, path, opens in CONDUCTOR:
        token = POOL if opens == "pool" else CONTROL
        if method != "GET":
            assert await conductor_answers(tmp_path / "state", method, path, f"Bearer {token}", evil) == 400
    for name in ("desired.json", "placements.json"):
        (tmp_path / "state" / name).write_bytes(evil)
    assert await conductor_answers(tmp_path / "state", "GET", "/v1/desired", f"Bearer {CONTROL}") == 404
    assert not marker.exists()


UNPICKLING = {
    *("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "jsonpickle"),
    *(
        "torch.load",
        "torch.jit.load",
        "torch.export.load",
        "torch.hub.load",
        "numpy.load",
        "np.load",
        "pandas.read_pickle",
    ),
    *(
        "eval",
        "exec",
        "compile",
        "os.system",
        "yaml.load",
        "yaml.unsafe_load",
        "yaml.full_load",
        "subprocess.getoutput",
    ),
}
_LAST = {name.rpartition(".")[2] for name in UNPICKLING}


def dangerous(source: str) -> Iterator[str]:
    """Names of modules and functions of `UNPICKLING` that a program imports or calls."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ({alias.name for alias in node.names} & UNPICKLING)
        elif isinstance(node, ast.ImportFrom):
            yield from ({node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)} & UNPICKLING)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            last = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if last in _LAST and (name := ast.unparse(node.func)) in UNPICKLING:
                yield name
        elif isinstance(node, ast.keyword) and node.arg == "shell":
            yield "shell="


def test_no_program_of_ours_unpickles_or_runs_text() -> None:
    """CVE-2025-32444, CVE-2025-32434, CVE-2026-15969: no module of ours reads a pickle, wherever it would come from.

    CVE-2026-42271 and CVE-2026-30623 (a command out of a request): none hands a text to a shell or to `eval`."""
    folders = ("operator", "serving", "model_cache", "loadtests")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert len(sources) > 150
    assert {path.name: found for path in sources if (found := list(dangerous(path.read_text())))} == {}
    assert list(dangerous("import pickle\ntorch.load(f)\nsubprocess.run(x, shell=True)")) == [
        "pickle",
        "torch.load",
        "shell=",
    ]


def test_keys_with_40_characters_in_common_are_different_keys() -> None:
    """CVE-2026-35030: the authentication cache of a proxy was keyed by the first 20 characters of the token, so that
    one user got another's identity. Breaks when a key is cut anywhere before it is hashed."""
    head = "ct-" + "a" * 37
    keys = {head + letter * 24: f"tenant-{letter}" for letter in string.ascii_lowercase}
    ring = Keyring((digest(key), name) for key, name in keys.items())
    for key, name in [*keys.items(), *reversed(keys.items())]:  # any memory of the one before would show
        assert authenticate([(b"authorization", b"Bearer " + key.encode())], ring) == name
    for wrong in (head, head + "a" * 23, head + "a" * 25, head + "A" * 24, next(iter(keys)) + "\x00"):
        with pytest.raises(RequestError):
            authenticate([(b"x-api-key", wrong.encode())], ring)


def welch_t(first: list[int], second: list[int]) -> float:
    """Of the times below the 90th percentile of both: what lies above is the machine's, not the code's."""
    most = sorted(first + second)[int(0.9 * (len(first) + len(second)))]
    kept = [[value for value in values if value <= most] for values in (first, second)]
    spread = sum(statistics.pvariance(values) / len(values) for values in kept)
    return float((statistics.fmean(kept[0]) - statistics.fmean(kept[1])) / max(spread, 1e-9) ** 0.5)


def timed(classes: tuple[list[bytes], list[bytes]], judge: Callable[[bytes], object], seed: int) -> float:
    """t of the times that keys of two classes take, asked in random turns."""
    drawn = random.Random(seed)
    order = [(which, key) for which in (0, 1) for key in classes[which]]
    drawn.shuffle(order)
    times: tuple[list[int], list[int]] = ([], [])
    for which, key in order:
        began = time.perf_counter_ns()
        judge(key)
        times[which].append(time.perf_counter_ns() - began)
    return welch_t(*times)


def test_the_time_for_a_wrong_key_does_not_say_how_much_of_it_is_right(full_size: Callable[[int], int]) -> None:
    """Key timing, as dudect measures it: |t| < 4.5 between wrong keys that share 40 characters with a right one and
    wrong keys that share none. A comparison that ends at the first difference is found by the same measure.

    Should chance alone exceed the bound (once in 100,000 runs), a second seed must too.
    """
    right = ("ct-" + "a" * 60).encode()
    ring = Keyring([(digest(right.decode()), "search")])
    count = full_size(200_000)
    drawn = random.Random(6)
    tail = [bytes(drawn.choices(b"bcdefghij", k=23)) for _ in range(count)]
    near, far = [right[:40] + end for end in tail], [b"x" * 40 + end for end in reversed(tail)]

    def compare_by_character(key: bytes) -> bool:
        return all(ours == theirs for ours, theirs in zip(right, key, strict=True))

    assert abs(timed((near, far), compare_by_character, 1)) > 4.5
    assert min(abs(timed((near, far), ring.tenant, seed)) for seed in (2, 3)) < 4.5
