"""Someone who reads a page of the docs and does what it says, in a home folder of their own."""

import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

from tests.builders.docs import ADDRESS, ROOT, Block, blocks, unlike
from tests.builders.ports import free_port
from tests.builders.up import until

PATIENCE_S = 100.0
APPLIED_S = 5.0
"""Edits apply within a second, say the docs; a reader who is quicker than that looks again, but not for longer."""


class Reader:
    """Begins in the repository's folder. Raises AssertionError with the place on the page, and what was printed."""

    def __init__(self, folder: Path) -> None:
        self._home = folder / "home"
        self._home.mkdir()
        self._kept = folder / "kept"
        """What a terminal keeps between commands, as lines of shell."""
        self._kept.touch()
        self._url = f"http://127.0.0.1:{free_port()}"
        self._up_log = folder / "up.log"
        self._up: subprocess.Popen[bytes] | None = None
        self._read: dict[Path, bool] = {}
        self._done: set[str] = set()
        """What the first page has done."""
        self._edited_s = 0.0

    def read_once(self, page: Path) -> None:
        """Do what the page says, unless that was done."""
        assert self._read.get(page, True), f"{page.name} did not work before"
        if page not in self._read:
            self._read[page] = False
            self._kept.write_text(self._kept.read_text() + f"cd {ROOT}\n")
            for block, following in pairwise([*blocks(page), None]):
                assert block is not None
                if block.text not in self._done:
                    self._do(block, following.text if following and following.language in ("text", "json") else "")
            self._done = self._done or {block.text for block in blocks(page)}
            self._read[page] = True

    def leave(self) -> None:
        """End what was left running."""
        if self._up is not None:
            self._up.terminate()
            self._up.wait(PATIENCE_S)

    def _do(self, block: Block, shown: str) -> None:
        if block.stays:
            self._serve(block)
        elif block.language == "sh":
            self._run(block, block.script(self._url), "" if block.left_out else shown)
        elif block.file:
            self._write(self._folder() / block.file, block)
        elif block.language == "python":
            script = self._home / ".block.py"
            self._write(script, block)
            self._run(block, f"python {script}", shown)

    def _serve(self, block: Block) -> None:
        assert len(block.commands) == 1, f"{block.place}: give `cotenant up` a block of its own"
        assert self._up is None, f"{block.place}: one `cotenant up` a page"
        port = self._url.rpartition(":")[2]
        script = self._script(f"exec {block.commands[0]} --port {port}")
        with self._up_log.open("wb") as log:
            self._up = subprocess.Popen(
                script, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self._environment()
            )
        ended = self._up.poll
        until(lambda: "ready: http" in self._said() or ended() is not None, "up is ready", explain=self._said)
        assert ended() is None, f"{block.place}: {self._said()}"

    def _run(self, block: Block, text: str, shown: str) -> None:
        """Run it, and see that it prints what is shown."""
        problem = self._problem(text, shown)
        while problem and time.monotonic() < self._edited_s + APPLIED_S:
            problem = self._problem(text, shown)
        assert not problem, f"{block.place}: {problem}\n{block.text}\nup: {self._said()}"

    def _problem(self, text: str, shown: str) -> str:
        done = subprocess.run(
            self._script(f"{text}\n{{ export -p; echo cd \"'$PWD'\"; }} > {self._kept}"),
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        if done.returncode:
            return f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        if problem := unlike(shown, done.stdout):
            return f"{problem}\n{done.stdout}"
        return ""

    def _script(self, text: str) -> list[str]:
        return ["bash", "-e", "-o", "pipefail", "-c", f". {self._kept}\n{text}"]

    def _folder(self) -> Path:
        return Path(self._kept.read_text().rstrip().splitlines()[-1].removeprefix("cd ").strip("'"))

    def _write(self, path: Path, block: Block) -> None:
        assert not path.is_relative_to(ROOT), f"{block.place} would write into the repository"
        text = block.text.replace(ADDRESS, self._url.removeprefix("http://"))
        path.write_text(path.read_text() + text if block.append else text)
        self._edited_s = time.monotonic()

    def _environment(self) -> dict[str, str]:
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("COTENANT_", "OPENAI_"))}
        path = f"{Path(sys.executable).parent}:{mine['PATH']}"
        return {**mine, "HOME": str(self._home), "PATH": path}

    def _said(self) -> str:
        return self._up_log.read_text(errors="replace") if self._up_log.exists() else ""
