"""What nodes get from each other, by real programs: what is on the own disk comes first, and slow ones are left."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.builders.cache_nodes import DEADLINE_S, CacheNodes, CacheProgram
from tests.builders.cached_models import model_files, put_by_hub_client, weights, wrong_files
from tests.builders.fake_hub import FakeHub
from tests.builders.fake_hub_content import sha256

pytestmark = pytest.mark.integration


def ensured(program: CacheProgram, source: str) -> dict[str, Any]:
    """The last line, which is `done`."""
    last = list(program.lines("/v1/ensure", {"source": source}))[-1]
    assert last["phase"] == "done", last
    return last


def peers(folder: Path, *addresses: str) -> tuple[str, str]:
    path = folder / "peers"
    path.write_text("".join(f"{address}\n" for address in addresses))
    return "--peers-file", str(path)


@contextmanager
def dripping_peer(content: bytes) -> Iterator[str]:
    """Its address. It has one blob alone, and gives a byte of it now and then."""
    digest, first = sha256(content), content[:1]
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if digest not in self.path:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            while not over.wait(0.05):
                self.wfile.write(first)

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(OSError):  # who asked has left
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def test_without_a_hub_a_branch_is_what_it_last_was_here_whatever_another_node_has(
    hub: FakeHub, nodes: CacheNodes, tmp_path: Path
) -> None:
    older = hub.put("org/a", model_files())
    first = nodes.start()
    assert ensured(first, "hf://org/a")["commit"] == older
    newer = hub.put("org/a", model_files(seed=1))
    second = nodes.start("--budget", "150k", *peers(tmp_path, first.address))
    assert ensured(second, "hf://org/a")["commit"] == newer

    hub.down = True
    assert ensured(second, "hf://org/a")["commit"] == newer
    layout = second.root / "models--org--a"
    assert (layout / "refs/main").read_text() == newer
    assert [path.name for path in (layout / "snapshots").iterdir()] == [newer]


def test_a_model_that_another_tool_put_on_a_node_goes_to_others_without_what_no_engine_reads(
    hub: FakeHub, nodes: CacheNodes, tmp_path: Path
) -> None:
    files = model_files()
    beside = {
        ".gitattributes": b"* -text",
        "README.md": b"# a",
        "model.py": b"print('never')",
        "pytorch_model.bin": b"pickle",
        "consolidated.safetensors": weights(1000, 7),
    }
    commit = hub.put("org/a", {**files, **beside})
    root = tmp_path / "filled"
    put_by_hub_client(hub.url, "org/a", root)
    first = nodes.start(root=root)
    deadline = time.monotonic() + DEADLINE_S
    while first.get(f"/v1/listing?repo=org/a&commit={commit}")[0] != 200:
        assert time.monotonic() < deadline, first.log
        time.sleep(0.05)
    listed = json.loads(first.get(f"/v1/listing?repo=org/a&commit={commit}")[1])
    assert {file["name"] for file in listed} == set(files)

    hub.down = True
    second = nodes.start(*peers(tmp_path, first.address))
    folder = Path(ensured(second, "hf://org/a")["folder"])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert "left alone" not in second.log
    assert {path.name for path in (root / "models--org--a/snapshots" / commit).iterdir()} == set(files) | set(beside)


def test_what_another_node_has_of_a_model_is_all_of_it_only_until_a_hub_answers(
    hub: FakeHub, nodes: CacheNodes, tmp_path: Path
) -> None:
    files = model_files()
    commit = hub.put("org/a", files)
    root = tmp_path / "filled"
    (put_by_hub_client(hub.url, "org/a", root) / "tokenizer.json").unlink()  # as a tool that asks for some files only
    hub.down = True
    first = nodes.start(root=root)
    source = f"hf://org/a@{commit}"
    ensured(first, source)
    second = nodes.start(*peers(tmp_path, first.address))
    folder = Path(ensured(second, source)["folder"])
    assert {path.name for path in folder.iterdir()} == set(files) - {"tokenizer.json"}

    hub.down = False
    ensured(second, source)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert hub.bytes_sent("org/a", "model.safetensors") == len(files["model.safetensors"])


def test_a_slow_peer_is_left_and_the_model_comes_from_the_hub(
    hub: FakeHub, nodes: CacheNodes, tmp_path: Path
) -> None:
    files = model_files(1_000_000)
    hub.put("org/a", files)
    with dripping_peer(files["model.safetensors"]) as address:
        node = nodes.start(*peers(tmp_path, address))
        folder = Path(ensured(node, "hf://org/a")["folder"])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert wrong_files(node.root) == []
    assert f"peer {address} is left alone for 60 s" in node.log
    assert "bytes came in 10 s" in node.log
