"""What a request may ask for: fields that are served, models by name. No address is called, no name is a path."""

import asyncio
import random
import urllib.parse
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from tests.builders.gateway import KEYS
from tests.builders.gateway_calls import error_of, get, post_chat, request
from tests.builders.raw_http import answers_to_all, message, statuses
from tests.cves.conftest import AUTHORIZED, Stage

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

KEY = {"authorization": f"Bearer {KEYS['search']}"}
SCHEMA = {"type": "object", "properties": {"a": {"pattern": "(a+)+$"}}}
TEMPLATE = "{{ ''.__class__.__mro__[1].__subclasses__() }}"


class Canary:
    """A listener on loopback, as an internal service would be: nobody may ever come."""

    def __init__(self) -> None:
        self.visits: list[bytes] = []
        self.port = 0

    async def visited(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits.append(await reader.read(200))
        writer.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/latest/meta-data"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def canary() -> AsyncIterator[Canary]:
    made = Canary()
    server = await asyncio.start_server(made.visited, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    await server.wait_closed()


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("CVE-2026-34756-n", {"n": 2**31 - 1}),
    ("CVE-2026-34756-n-of-2", {"n": 2}),
    ("CVE-2026-34756-best_of", {"best_of": 10**9}),
    ("CVE-2026-34756-top_logprobs", {"logprobs": True, "top_logprobs": 10**9}),
    ("CVE-2026-34756-prompt_logprobs", {"prompt_logprobs": 10**9}),
    ("CVE-2026-34756-use_beam_search", {"use_beam_search": True, "n": 64}),
    ("CVE-2025-62426-chat_template_kwargs", {"chat_template_kwargs": {"tokenize": True, "messages": []}}),
    ("CVE-2025-62426-chat_template_kwargs-chat_template", {"chat_template_kwargs": {"chat_template": TEMPLATE}}),
    ("CVE-2026-115911-chat_template", {"chat_template": TEMPLATE}),
    ("CVE-2026-115918-chat_template", {"chat_template": "{% for a in range(10**9) %}{% endfor %}"}),
    ("CVE-2026-115918-documents", {"documents": [{"text": TEMPLATE}]}),
    ("CVE-2026-115918-tools", {"tools": [{"type": "function", "function": {"name": TEMPLATE}}]}),
    ("CVE-2026-105757-structured_outputs", {"structured_outputs": {"json": SCHEMA}}),
    ("CVE-2026-105757-guided_regex", {"guided_regex": "(a+)+$"}),
    ("CVE-2026-105757-response_format", {"response_format": {"type": "json_schema", "json_schema": SCHEMA}}),
    ("CVE-2026-105756-cache_salt", {"cache_salt": "é" * 4096}),
    ("CVE-2026-105756-cache_salt-number", {"cache_salt": 1}),
    ("CVE-2025-29770-guided_grammar", {"guided_grammar": 'root ::= "a" root'}),
    ("CVE-2025-29770-guided_decoding_backend", {"guided_decoding_backend": "outlines"}),
    ("CVE-2024-6587-api_base", {"api_base": "CANARY"}),
    ("CVE-2024-6587-base_url", {"base_url": "CANARY"}),
    ("CVE-2024-6587-api_key", {"api_key": "sk-x", "custom_llm_provider": "openai"}),
    ("CVE-2026-34753-input_file", {"input_file": "CANARY"}),
    ("CVE-2026-42271-command", {"command": "touch", "args": ["MARKER"], "env": {"LD_PRELOAD": "x"}}),
    ("CVE-2026-42271-mcp_servers", {"mcp_servers": [{"transport": "stdio", "command": "touch", "args": ["MARKER"]}]}),
    ("CVE-2026-30623-tools", {"tools": [{"type": "mcp", "server_url": "CANARY", "command": "touch MARKER"}]}),
    ("CVE-2026-105755-request_id", {"request_id": "same"}),
    ("kv_transfer_params", {"kv_transfer_params": {"remote_host": "CANARY", "remote_port": 1}}),
    ("vllm_xargs", {"vllm_xargs": {"x": "CANARY"}}),
    ("lora_path", {"lora_path": "/etc"}),
    ("bootstrap_host", {"bootstrap_host": "CANARY"}),
    ("logits_processors", {"logits_processors": ["os.system"]}),
    ("tenant", {"tenant": "ads"}),
]


@pytest.mark.parametrize(("what", "fields"), REFUSED, ids=[name for name, _ in REFUSED])
async def test_a_field_that_is_not_served_is_named_and_never_reaches_an_engine(
    what: str, fields: dict[str, Any], stage: Stage, canary: Canary, tmp_path: Path
) -> None:
    """Parameters that took engines down (a huge `n`, grammars, schemas, a salt of the wrong kind, templates of the
    request's own), or that named an address or a command which was then called. Breaks when unknown fields pass."""
    marker = tmp_path / "executed"
    text = orjson.dumps(fields).replace(b"CANARY", canary.url.encode()).replace(b"MARKER", str(marker).encode())
    status, _, body = await post_chat(stage.gateway, **orjson.loads(text))
    assert (status, error_of(body)["param"]) == (400, next(iter(fields)) if "logprobs" not in fields else "logprobs")
    assert (stage.heard(), canary.visits, marker.exists()) == ([], [], False)


def media_parts(url: str) -> list[dict[str, Any]]:
    return [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "image_url", "image_url": url},
        {"type": "input_image", "image_url": url},
        {"type": "video_url", "video_url": {"url": url}},
        {"type": "audio_url", "audio_url": {"url": url}},
        {"type": "input_audio", "input_audio": {"data": url, "format": "wav"}},
        {"type": "file", "file": {"file_url": url, "file_id": url}},
        {"type": "image_embeds", "image_embeds": url},
        {"type": "text", "text": {"url": url}},
    ]


@pytest.mark.parametrize("number", range(9))
async def test_no_address_of_a_picture_is_ever_fetched(number: int, stage: Stage, canary: Canary) -> None:
    """CVE-2026-24779 (vLLM: the server fetches `image_url`), CVE-2026-25960 (its filter read the URL differently than
    the client that fetched it), CVE-2026-33626 (LMDeploy: the same, exploited within 13 hours): only text is served,
    so that there is no URL to judge."""
    host = f"127.0.0.1:{canary.port}"
    tricks = [
        *(f"http://{host}/", f"http://127.1:{canary.port}/", f"http://2130706433:{canary.port}/", f"//{host}/"),
        *(
            f"http://[::ffff:127.0.0.1]:{canary.port}/",
            f"http://localhost:{canary.port}/",
            f"http://example.com@{host}/",
        ),
        *(
            f"http://{host}\\@example.com/",
            f"http://0x7f000001:{canary.port}/",
            f"HTTP://{host}/a.png",
            "file:///etc/passwd",
        ),
        *(f"http://localtest.me:{canary.port}/", f"gopher://{host}/_GET", "data:image/png;base64,iVBORw0KGgo="),
    ]
    for url in tricks:
        content = [{"type": "text", "text": "what is this?"}, media_parts(url)[number]]
        status, _, body = await post_chat(stage.gateway, messages=[{"role": "user", "content": content}])
        assert (status, error_of(body)["param"]) == (400, "messages[0].content[1]")
    assert (stage.heard(), canary.visits) == ([], [])


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank", "/v1/score", "/v1/classify"])
async def test_no_address_in_a_text_is_fetched(path: str, stage: Stage, canary: Canary) -> None:
    """CVE-2026-34753 (vLLM's batch and pooling inputs): a URL is a text like any other, and an object is no text."""
    names = {"/v1/embeddings": ("embed", "input"), "/v1/classify": ("classify", "input")}
    model, field = names.get(path, ("rerank", "documents" if path == "/v1/rerank" else "text_2"))
    other = {"/v1/rerank": {"query": canary.url}, "/v1/score": {"text_1": canary.url}}.get(path, {})
    for value, expected in ((canary.url, {200, 400}), ([canary.url], {200}), ([{"image_url": canary.url}], {400})):
        body = orjson.dumps({"model": model, field: value, **other})
        status, _, _ = await request(stage.gateway, "POST", path, body=body, headers=KEY)
        assert status in expected
    assert canary.visits == []


PIECES = (
    *(
        "../",
        "..\\",
        "%2e%2e%2f",
        "%2e",
        "%00",
        "\x00",
        "'",
        '"',
        "`",
        "\n",
        "\r\n",
        "\t",
        "\u202e",
        "\u2066",
        "\ufeff",
    ),
    *("$(id)", "; rm -rf /", "| id", "&& id", "{{7*7}}", "${jndi:x}", "file:///etc/passwd", "hf://a/b", "http://x/"),
    *(
        "\\\\host\\share",
        "C:\\",
        "CON",
        ".",
        "..",
        "/",
        "//",
        "search/",
        "echo",
        "search/echo",
        "ads/",
        "*",
        "?",
        "[a]",
    ),
    *(
        '{model="x"}',
        "=~",
        "%s%n",
        "\x1b[31m",
        "é",
        "😀",
        "\u0130",
        "ﬁ",
        "\x7f",
        "a" * 250,
        " ",
        "+",
        "#",
        ";",
        ":",
        "@",
    ),
)


async def test_5000_strange_names_of_models_are_looked_up_and_nothing_else(
    stage: Stage, full_size: Callable[[int], int]
) -> None:
    """CVE-2025-23316 (Triton before 25.08): the name of a model in a request went into a command.

    A name is compared with those that the tenant sees. It is in no path, log, metric or header that follows.
    """
    drawn = random.Random(23316)
    names = ["".join(drawn.choices(PIECES, k=drawn.randint(1, 5))) for _ in range(full_size(5000))]
    names = [name for name in names if name not in ("echo", "search/echo")]
    files = set(stage.gateway.directory.rglob("*"))
    logged = len(stage.gateway.log)
    for chunk in (names[at : at + 500] for at in range(0, len(names), 500)):
        bodies = [orjson.dumps({"model": name, "messages": [{"role": "user", "content": "a"}]}) for name in chunk]
        requests = [message(b"POST", b"/v1/chat/completions", AUTHORIZED, body=body) for body in bodies]
        answered = await answers_to_all(stage.port, requests)
        assert set(Counter(tuple(statuses(raw)) for raw in answered)) <= {(404,), (400,)}
    assert (stage.heard(), set(stage.gateway.directory.rglob("*"))) == ([], files)
    assert stage.gateway.log[logged:] == []
    metrics = await metrics_now(stage)
    assert not [name for name in names if len(name) > 20 and name in metrics]


async def test_strange_names_in_a_path_are_looked_up_too(stage: Stage, full_size: Callable[[int], int]) -> None:
    """CVE-2025-23316: the name of a model as a part of the path, quoted and not."""
    drawn = random.Random(23317)
    targets = []
    for _ in range(full_size(3000)):
        name = "".join(drawn.choices(PIECES, k=drawn.randint(1, 3)))
        quoted = urllib.parse.quote(name, safe=drawn.choice(("", "/", "/.\\'")))
        targets.append(f"/v2/models/{quoted}/{drawn.choice(('infer', 'ready', 'versions/1', '', 'load'))}")
    requests = [message(b"GET", target.encode(), AUTHORIZED) for target in targets]
    answered = dict(zip(targets, await answers_to_all(stage.port, requests), strict=True))
    strange = {target: raw for target, raw in answered.items() if statuses(raw) not in ([400], [404], [405])}
    # What is left names the tenant's own model, in a quoted way.
    known = ("/v2/models/search/echo", "/v2/models/echo")
    assert {target for target in strange if not urllib.parse.unquote(target).startswith(known)} == set()
    assert b"root:" not in b"".join(answered.values())


async def metrics_now(stage: Stage) -> str:
    """A rendering is shown for a second to all who ask. One that counts a marker, a refusal of its own kind, is
    younger than everything that was sent before the marker."""
    stage.markers += 1
    counted = f'cotenant_rejections_total{{reason="unsupported_encoding",tenant="search"}} {stage.markers}.0'
    await request(stage.gateway, "POST", "/v1/completions", body=b"{}", headers={**KEY, "content-encoding": "x"})
    async with asyncio.timeout(30):
        while counted not in (text := (await get(stage.gateway, "/metrics"))[2].decode()):
            await asyncio.sleep(0.05)
    return text


async def test_random_names_keys_and_paths_make_no_new_series(stage: Stage, full_size: Callable[[int], int]) -> None:
    """Cardinality: labels of a client's own choice fill the memory of the gateway and of Prometheus. After random
    models, keys, paths and methods there are as many series as after the first of each."""
    drawn = random.Random(9)

    def word() -> str:
        return f"{drawn.getrandbits(64):x}"

    def sent(count: int) -> list[bytes]:
        made = []
        for _ in range(count):
            body = orjson.dumps({"model": f"search/{word()}", "messages": [{"role": "user", "content": word()}]})
            made.append(message(b"POST", b"/v1/chat/completions", AUTHORIZED, body=body))
            made.append(message(b"POST", b"/v1/chat/completions", f"x-api-key: {word()}".encode(), body=body))
            made.append(message(b"GET", f"/v1/{word()}".encode(), AUTHORIZED, f"x-{word()}: {word()}".encode()))
        return made

    await answers_to_all(stage.port, sent(4))
    before = await metrics_now(stage)
    await answers_to_all(stage.port, sent(full_size(3000)))
    after = await metrics_now(stage)
    assert before.count("\ncotenant_") > 20
    assert after.count("\ncotenant_") == before.count("\ncotenant_")


async def test_metrics_tell_counts_of_configured_names_and_no_word_of_a_request(stage: Stage) -> None:
    """Leaks by metrics: /metrics names tenants and models to whoever reaches it (docs/security.md says so); prompts,
    answers, keys, ids of requests and addresses of clients stand in no label and no name."""
    secret = "canary-of-a-prompt-5f1d"
    status, headers, _ = await post_chat(
        stage.gateway,
        messages=[{"role": "user", "content": secret}],
        user=secret,
        metadata={"a": secret},
        headers={"user-agent": secret, "x-request-id": secret},
    )
    assert status == 200
    mine = [line for line in (await metrics_now(stage)).splitlines() if line.startswith("cotenant_")]
    assert [line for line in mine if secret in line or headers["x-request-id"] in line or "127.0.0.1" in line] == []
    quoted = {value for line in mine for value in line.partition("}")[0].split('"')[1::2]}
    assert {value for value in quoted if "/" in value} <= {f"{a}/{b}" for a in ("search", "ads") for b in TASK_NAMES}
    assert not [value for value in quoted if any(key in value for key in KEYS.values())]


TASK_NAMES = ("echo", "embed", "rerank", "classify", "tensor")
