"""`cotenant demo`: the product on an embedded default. Two tenants, two models, one device, real answers."""

import asyncio
import contextlib
import http.client
import json
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import cotenant_serving
from cotenant_operator.control import ControlError
from cotenant_operator.local import Running
from cotenant_operator.local import run as run_local
from cotenant_operator.output import print_table
from cotenant_operator.shares_report import share_rows
from cotenant_operator.state_dir import write_private

QUESTION = "What is cotenant and who is it for?"
QUERY = "a cheap place to stay"
SENTENCES = (
    "Hotel rooms from 40 euros a night",
    "Warm winter coats for the whole family",
    "Learn to bake bread like a master",
    "Repair of bicycles while you wait",
)
WAKE_TIMEOUT_S = 120.0

MODELS = """\
# Written by `cotenant demo`. Edit it while the demo runs: changes apply within a second.
apiVersion: cotenant.dev/v1alpha1
kind: ModelDeployment
metadata: {{name: chat, namespace: search}}
spec:
  model: file://{models}/chat
  gpu: {{memory: 1536Mi}}
  engine: {{contextTokens: 512, concurrency: 8}}
---
apiVersion: cotenant.dev/v1alpha1
kind: ModelDeployment
metadata: {{name: sentences, namespace: ads}}
spec:
  model: file://{models}/sentences
  task: embed
  gpu: {{memory: 1536Mi}}
  engine: {{contextTokens: 128, concurrency: 8}}
---
apiVersion: cotenant.dev/v1alpha1
kind: Tenant
metadata: {{name: search}}
spec:
  namespaces: [search]
  keys: [{{secretRef: {{name: demo-keys, key: search}}}}]
  limits: {{requestsPerMinute: 600, tokensPerMinute: 200000, concurrentRequests: 16}}
---
apiVersion: cotenant.dev/v1alpha1
kind: Tenant
metadata: {{name: ads}}
spec:
  namespaces: [ads]
  keys: [{{secretRef: {{name: demo-keys, key: ads}}}}]
"""

KEYS = """\
apiVersion: v1
kind: Secret
metadata: {{name: demo-keys, namespace: cotenant-system}}
stringData: {{search: {search}, ads: {ads}}}
"""


def run(*, once: bool, port: int, state: Path) -> int:
    """The main job: returns 0 after the answer with `once`, else serves until Ctrl-C."""
    folder = state.expanduser().resolve() / "files"
    keys = {name: "ct-" + secrets.token_urlsafe(32) for name in ("search", "ads")}
    files = [folder / "models.yaml", folder / "keys.yaml"]
    stage = _Stage()

    def write_files() -> None:
        folder.mkdir(exist_ok=True, mode=0o700)
        write_private(files[0], MODELS.format(models=_model_folders()).encode())
        write_private(files[1], KEYS.format(**keys).encode())

    async def show(running: Running) -> int | None:
        try:
            return await asyncio.to_thread(_show, running, stage, keys, folder, once)
        except asyncio.CancelledError:
            stage.leave()
            raise
        except (ControlError, OSError, http.client.HTTPException) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1

    running = run_local(
        files, host="127.0.0.1", port=port, state=state, prepare=write_files, then=show, say=stage.say
    )
    return asyncio.run(running)


class _Stage:
    """One speaks at a time: keeps another answer and the news of `up` out of an answer that is being streamed."""

    def __init__(self) -> None:
        self.left = False
        self.speaking = threading.Lock()
        self._connections: list[http.client.HTTPConnection] = []

    def connect(self, port: int) -> http.client.HTTPConnection:
        self._connections.append(http.client.HTTPConnection("127.0.0.1", port, timeout=WAKE_TIMEOUT_S))
        return self._connections[-1]

    def leave(self) -> None:
        """Stop waiting for answers: the thread that reads them ends, and the gateway need not drain them."""
        self.left = True
        for connection in self._connections:
            with contextlib.suppress(OSError):
                if connection.sock is not None:
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def say(self, line: str) -> None:
        if not self.speaking.locked():
            print(f"  [up] {line}", file=sys.stderr, flush=True)


def _model_folders() -> Path:
    return Path(str(resources.files(cotenant_serving) / "demo_models"))


def _show(running: Running, stage: _Stage, keys: dict[str, str], folder: Path, once: bool) -> int | None:
    """The visible part, in threads: they wait on sockets while `up` looks after the programs."""
    began_s = time.monotonic()
    print(
        "\nTenant search asks model chat while tenant ads ranks sentences with model sentences. Both are cold: they"
    )
    print("wake now, one after the other, on the same device.", flush=True)
    with ThreadPoolExecutor(2) as threads:
        answer = threads.submit(_show_answer, running, stage, keys["search"])
        ranking = threads.submit(_show_ranking, running, stage, keys["ads"])
        try:
            first_token_s, vectors_s = answer.result() - began_s, ranking.result() - began_s
        except (ControlError, OSError, http.client.HTTPException):
            if stage.left:
                return None
            stage.leave()
            raise
    print(f"\nFirst token of chat {first_token_s:.1f} s after the first request to the cold device, ", end="")
    print(f"vectors of sentences {vectors_s:.1f} s.\n")
    print_table(*share_rows(running.control.status()))
    print(_snippets(running.port, keys, folder))
    if once:
        return 0
    print("Serving until Ctrl-C.", flush=True)
    return None


def _show_answer(running: Running, stage: _Stage, key: str) -> float:
    """Prints the answer of chat as it comes. Returns the time of its first token. Raises ControlError without one."""
    texts = _chat(stage, running.port, key, "chat", QUESTION)
    text, first_s = next(texts, ""), time.monotonic()
    if not text:
        raise ControlError(f"no answer came from model chat; the logs in {running.state.logs} say why")
    with stage.speaking:
        print(f"\n  search> {QUESTION}\n  chat>   {text}", end="", flush=True)
        for text in texts:
            print(text, end="", flush=True)
        print(flush=True)
    return first_s


def _show_ranking(running: Running, stage: _Stage, key: str) -> float:
    """Prints how near each sentence is to the query, nearest first. Returns the time when the vectors came."""
    query, *vectors = _vectors(stage, running.port, key, "sentences", [QUERY, *SENTENCES])
    answered_s = time.monotonic()
    near = [sum(a * b for a, b in zip(query, vector, strict=True)) for vector in vectors]
    ranked = sorted(zip(near, SENTENCES, strict=True), reverse=True)
    with stage.speaking:
        print(f"\n  ads>       {QUERY}")
        for number, (nearness, sentence) in enumerate(ranked):
            print(f"  {'' if number else 'sentences>':10} {nearness:5.2f}  {sentence}", flush=True)
    return answered_s


def _vectors(stage: _Stage, port: int, key: str, model: str, texts: Sequence[str]) -> list[list[float]]:
    """One vector for each text, of length 1. Raises ControlError with the server's own words."""
    connection = stage.connect(port)
    try:
        response = _post(connection, "/v1/embeddings", key, {"model": model, "input": texts})
        return [item["embedding"] for item in json.loads(response.read())["data"]]
    finally:
        connection.close()


def _chat(stage: _Stage, port: int, key: str, model: str, content: str) -> Iterator[str]:
    """Texts of one streamed chat answer, as they come. Raises ControlError with the server's own words."""
    connection = stage.connect(port)
    body = {"model": model, "stream": True, "temperature": 0, "messages": [{"role": "user", "content": content}]}
    try:
        for line in _post(connection, "/v1/chat/completions", key, body):
            if line.startswith(b"data: {"):
                yield from _texts(json.loads(line[6:]))
    finally:
        connection.close()


def _post(
    connection: http.client.HTTPConnection, path: str, key: str, body: dict[str, object]
) -> http.client.HTTPResponse:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    connection.request("POST", path, json.dumps(body), headers)
    response = connection.getresponse()
    if response.status != 200:
        raise ControlError(f"model {body['model']}: {response.status}: {response.read().decode(errors='replace')}")
    return response


def _texts(event: dict[str, object]) -> Iterator[str]:
    if "error" in event:
        raise ControlError(f"the stream broke: {event['error']}")
    choices = event.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        if text := choice["delta"].get("content"):
            yield text


def _snippets(port: int, keys: dict[str, str], folder: Path) -> str:
    return f"""
Paste this (the keys are fresh; they work while the demo runs):

  curl -N http://127.0.0.1:{port}/v1/chat/completions \\
    -H "authorization: Bearer {keys["search"]}" -H "content-type: application/json" \\
    -d '{{"model": "chat", "stream": true, "messages": [{{"role": "user", "content": "How do I share a GPU?"}}]}}'

  curl http://127.0.0.1:{port}/v1/embeddings \\
    -H "authorization: Bearer {keys["ads"]}" -H "content-type: application/json" \\
    -d '{{"model": "sentences", "input": ["a cheap place to stay", "hotel rooms from 40 euros"]}}'

  from openai import OpenAI   # pip install openai
  client = OpenAI(base_url="http://127.0.0.1:{port}/v1", api_key="{keys["search"]}")
  print(client.chat.completions.create(model="chat", messages=[{{"role": "user", "content": "What is a Tenant?"}}])
        .choices[0].message.content)

The YAML behind it: {folder}/models.yaml
What runs:          cotenant get models --state {folder.parent}
"""
