"""What another node's weight cache says is taken only when it could be a model."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cotenant_cache.backoff import LeftS, no_end
from cotenant_cache.contract import ModelFile
from cotenant_cache.errors import HubUnreachableError
from cotenant_cache.listings import MOST_FILES
from cotenant_cache.source import HubSource
from cotenant_cache.supply import Listed
from cotenant_serving.weight_cache.peers import ASKED_AT_MOST, PeerSupply

COMMIT = "c0ffee" * 6 + "beef"
GOOD = {"name": "config.json", "size_bytes": 2, "digest": "a" * 40}


class NoHub:
    def listed(self, source: HubSource, left_s: LeftS = no_end) -> Listed:
        raise HubUnreachableError("the hub is switched off")

    def listed_elsewhere(self, source: HubSource, left_s: LeftS = no_end) -> Listed | None:
        raise AssertionError

    def fetch(self, *_: object) -> None:
        raise AssertionError


@contextmanager
def peer(files: object, asked: list[str] | None = None) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if asked is not None:
                asked.append(self.path)
            body = json.dumps(files).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def listed(files: object) -> Listed | None:
    with peer(files) as address:
        supply = PeerSupply(lambda: [address], lambda: "token", NoHub())
        return supply.listed_elsewhere(HubSource("org/a", COMMIT))


def test_a_listing_of_a_peer_is_taken_while_no_hub_answers() -> None:
    assert listed([GOOD]) == Listed(COMMIT, (ModelFile(**GOOD),), found=True)


@pytest.mark.parametrize(
    "bad",
    [
        {"name": "../../../etc/passwd"},
        {"name": "/etc/passwd"},
        {"name": "a/b/c.json"},
        {"name": "modeling.py"},
        {"name": "pytorch_model.bin"},
        {"digest": "../../x"},
        {"digest": ""},
        {"size_bytes": -1},
        {"size_bytes": 2**63},
    ],
)
def test_a_peer_that_lists_what_is_no_file_of_a_model_is_not_believed(bad: dict[str, object]) -> None:
    assert listed([GOOD, {**GOOD, **bad}]) is None


def test_a_peer_that_lists_more_files_than_a_model_has_is_not_believed() -> None:
    assert listed([{**GOOD, "name": f"{number}.json"} for number in range(MOST_FILES + 1)]) is None


def test_no_peer_is_asked_while_the_hub_may_answer() -> None:
    with peer([GOOD]) as address, pytest.raises(HubUnreachableError):
        PeerSupply(lambda: [address], lambda: "token", NoHub()).listed(HubSource("org/a", COMMIT))


def test_of_many_peers_a_few_are_asked_what_a_model_is() -> None:
    asked: list[str] = []
    with peer([], asked) as address:  # as one that does not have it
        supply = PeerSupply(lambda: [address] * 100, lambda: "token", NoHub())
        assert supply.listed_elsewhere(HubSource("org/a", COMMIT)) is None
    assert len(asked) == ASKED_AT_MOST


def test_who_has_no_time_left_asks_no_peer_and_holds_nothing_against_the_one_that_it_was_asking() -> None:
    asked: list[str] = []
    with peer([GOOD], asked) as address:
        supply = PeerSupply(lambda: [address], lambda: "token", NoHub())
        source, left = HubSource("org/a", COMMIT), iter([1.0])
        assert supply.listed_elsewhere(source, lambda: 0.0) is None
        assert asked == []
        assert supply.listed_elsewhere(source, lambda: next(left, 0.0)) is None  # it ends in the middle
        assert supply.listed_elsewhere(source) is not None
