"""A Hugging Face hub for tests: repositories, revisions, LFS files behind redirects to a second host, and faults.

`FakeHub` runs in threads of the test's own process, `HubProcess` has the same methods and a process to itself.
Real huggingface_hub talks to either over loopback. How it answers is in `fake_hub_server.py`.
"""

import multiprocessing
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.managers import BaseManager
from typing import Any

from tests.builders.fake_hub_content import (
    FAULTS,
    LISTING,
    Content,
    Fault,
    Repo,
    commit_of,
    other_bytes,
)
from tests.builders.fake_hub_server import serve

__all__ = ["FAULTS", "LISTING", "Content", "FakeHub", "Fault", "HubProcess", "Repo"]


class FakeHub:
    """Counts what it sends: `log` has every request, `sent` the bytes of bodies by (repo, name)."""

    def __init__(self, token: str = "hf_token", host: str = "127.0.0.1") -> None:
        """`host`: the address of this machine that it listens on."""
        self.token = token
        """Opens private repositories."""
        self.repos: dict[str, Repo] = {}
        self.log: list[tuple[str, str]] = []
        self.tokens: set[str] = set()
        """Authorization headers that came to the hub, and those that should not have come to the second host."""
        self.leaked: set[str] = set()
        self.sent: Counter[tuple[str, str]] = Counter()
        self.down = False
        self.takes_range = True
        self.faults: list[Fault] = []
        self.changed: dict[tuple[str, str], int] = {}
        self.stalls: set[str] = set()
        """Repositories of which an answer has begun to stall or to drip, and all before that has arrived."""
        self.starts: list[tuple[str, str, int]] = []
        """(repo, name, first byte) of every answer with a file's bytes."""
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._stop, (self.url, self.cdn_url) = serve(self, host)

    # What tests do to it. Also what HubProcess forwards.

    def addresses(self) -> tuple[str, str]:
        """Of the hub, and of the second host that large files are redirected to."""
        return self.url, self.cdn_url

    def put(self, repo: str, files: Mapping[str, Content], **settings: Any) -> str:
        """A new commit of a repository, with these files alone; returns its id. `settings` are fields of Repo."""
        commit = commit_of(repo, files)
        old = self.repos.get(repo)
        if old is None:
            self.repos[repo] = Repo(dict(files), commit, **settings)
        else:
            older = {**old.older, old.commit: old.files}
            older.pop(commit, None)
            self.repos[repo] = replace(old, files=dict(files), commit=commit, older=older, **settings)
        return commit

    def remove(self, repo: str) -> None:
        del self.repos[repo]

    def fault(self, *faults: Fault) -> None:
        """Adds them; each is met in the order of adding, by the GETs that it fits."""
        with self.lock:
            self.faults += faults

    def heal(self) -> None:
        with self.lock:
            self.faults.clear()
            self.changed.clear()
            self.down = False

    def set_down(self, down: bool) -> None:
        """While it is, every answer is 503."""
        self.down = down

    def bytes_sent(self, repo: str = "", name: str = "") -> int:
        """Bytes of files' bodies, of all files or of these; headers and listings do not count."""
        with self.lock:
            return sum(
                count for (of, file), count in self.sent.items() if (not repo or of == repo) and name in ("", file)
            )

    def requests(self, method: str = "", part: str = "") -> list[tuple[str, str]]:
        """Method and path of every request so far, of one method, and with `part` in the path."""
        with self.lock:
            return [(m, path) for m, path in self.log if (not method or m == method) and part in path]

    def listings(self) -> int:
        return len(self.requests("GET", "/api/models/"))

    def seen_tokens(self) -> tuple[set[str], set[str]]:
        """Authorization headers that came to the hub, and to the second host."""
        with self.lock:
            return set(self.tokens), set(self.leaked)

    def forget(self) -> None:
        """Counts begin anew. An answer that still goes to somebody, dead perhaps, counts for what was before."""
        with self.lock:
            self.log.clear()
            self.sent = Counter()
            self.starts.clear()
            self.tokens.clear()
            self.leaked.clear()

    def close(self) -> None:
        self.closing.set()
        self._stop()

    # What the server asks.

    def meets(self, kinds: tuple[str, ...], name: str) -> Fault | None:
        """The first fault of these kinds that fits, one time of it used up."""
        with self.lock:
            for index, fault in enumerate(self.faults):
                if fault.kind in kinds and fault.name in ("", name) and (fault.name or name != LISTING):
                    left = replace(fault, times=fault.times - 1)
                    self.faults[index : index + 1] = [left] if left.times else []
                    return fault
        return None

    def content(self, repo: str, name: str, content: Content) -> Content:
        """As it is, or other bytes while a `revision` fault says so."""
        with self.lock:
            left = self.changed.get((repo, name))
            if left is None:
                return content
            if left == 1:
                del self.changed[repo, name]
            else:
                self.changed[repo, name] = left - 1
        return other_bytes(content)


class _Manager(BaseManager):
    pass


_Manager.register("FakeHub", FakeHub)


class HubProcess:
    """A FakeHub in a process of its own, so that its work costs the test's process nothing."""

    def __init__(self, token: str = "hf_token") -> None:
        self._manager = _Manager(ctx=multiprocessing.get_context("spawn"))
        self._manager.start()
        self._hub: Any = self._manager.FakeHub(token)  # type: ignore[attr-defined]
        self.url, self.cdn_url = self._hub.addresses()
        self.put, self.remove, self.fault, self.heal = (
            self._hub.put,
            self._hub.remove,
            self._hub.fault,
            self._hub.heal,
        )
        self.set_down, self.bytes_sent, self.requests = self._hub.set_down, self._hub.bytes_sent, self._hub.requests
        self.listings, self.seen_tokens, self.forget = self._hub.listings, self._hub.seen_tokens, self._hub.forget

    def close(self) -> None:
        self._hub.close()
        self._manager.shutdown()

    def __enter__(self) -> "HubProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
