"""`cotenant demo`: the product on an embedded default. Two tenants, two models, one device, a real answer."""

import asyncio
import contextlib
import http.client
import json
import secrets
import socket
import sys
import time
from collections.abc import Iterator
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
NEIGHBOUR_PROMPT = " ".join(f"word{number}" for number in range(400))
WAKE_TIMEOUT_S = 120.0

MODELS = """\
# Written by `cotenant demo`. Edit it while the demo runs: changes apply within a second.
apiVersion: cotenant.dev/v1alpha1
kind: ModelDeployment
metadata: {{name: chat, namespace: search}}
spec:
  model: file://{model}
  gpu: {{memory: 1536Mi}}
  engine: {{contextTokens: 512, concurrency: 8}}
---
apiVersion: cotenant.dev/v1alpha1
kind: ModelDeployment
metadata: {{name: echo, namespace: ads}}
spec:
  task: echo
  gpu: {{memory: 256Mi}}
  engine: {{tokensPerSecond: 20, concurrency: 4}}
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
        write_private(files[0], MODELS.format(model=_model_folder()).encode())
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
    """Keeps the news of `up` from running into an answer that is being streamed."""

    def __init__(self) -> None:
        self.quiet = False
        self.left = False
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
        if not self.quiet:
            print(f"  [up] {line}", file=sys.stderr, flush=True)


def _model_folder() -> Path:
    return Path(str(resources.files(cotenant_serving) / "demo_models" / "chat"))


def _show(running: Running, stage: _Stage, keys: dict[str, str], folder: Path, once: bool) -> int | None:
    """The visible part, in a thread: it waits on sockets while `up` looks after the programs."""
    port = running.port
    began = first_s = time.monotonic()
    print("\nTenant ads streams from model echo while tenant search asks model chat. Both are cold: they wake now.")
    neighbour = _chat(stage, port, keys["ads"], "echo", NEIGHBOUR_PROMPT)
    next(neighbour, "")
    answered = False
    for text in _chat(stage, port, keys["search"], "chat", QUESTION):
        if not answered:
            first_s, answered, stage.quiet = time.monotonic(), True, True
            print(f"\n  search> {QUESTION}\n  chat>   ", end="", flush=True)
        print(text, end="", flush=True)
    stage.quiet = False
    if stage.left:
        return None
    if not answered:
        print(f"no answer came; the logs in {running.state.logs} say why", file=sys.stderr)
        return 1
    print(f"\n\nFirst token of chat {first_s - began:.1f} s after the first request to the cold device.\n")
    print_table(*share_rows(running.control.status()))
    print(_snippets(port, keys["search"], folder))
    if once:
        return 0
    print("Serving until Ctrl-C.", flush=True)
    for _ in neighbour:
        pass
    return None


def _chat(stage: _Stage, port: int, key: str, model: str, content: str) -> Iterator[str]:
    """Texts of one streamed chat answer, as they come. Raises ControlError with the server's own words."""
    connection = stage.connect(port)
    body = {"model": model, "stream": True, "temperature": 0, "messages": [{"role": "user", "content": content}]}
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        if response.status != 200:
            raise ControlError(f"model {model}: {response.status}: {response.read().decode(errors='replace')}")
        for line in response:
            if line.startswith(b"data: {"):
                yield from _texts(json.loads(line[6:]))
    finally:
        connection.close()


def _texts(event: dict[str, object]) -> Iterator[str]:
    if "error" in event:
        raise ControlError(f"the stream broke: {event['error']}")
    choices = event.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        if text := choice["delta"].get("content"):
            yield text


def _snippets(port: int, key: str, folder: Path) -> str:
    return f"""
Paste this (the key is fresh; it works while the demo runs):

  curl -N http://127.0.0.1:{port}/v1/chat/completions \\
    -H "authorization: Bearer {key}" -H "content-type: application/json" \\
    -d '{{"model": "chat", "stream": true, "messages": [{{"role": "user", "content": "How do I share a GPU?"}}]}}'

  from openai import OpenAI   # pip install openai
  client = OpenAI(base_url="http://127.0.0.1:{port}/v1", api_key="{key}")
  print(client.chat.completions.create(model="chat", messages=[{{"role": "user", "content": "What is a Tenant?"}}])
        .choices[0].message.content)

The YAML behind it: {folder}/models.yaml
What runs:          cotenant get models --state {folder.parent}
"""
