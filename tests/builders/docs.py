"""The commands in README.md and docs/: found here, checked by tests/unit, run by tests/integration.

What a page says is what is done, in the page's order:

- A page begins in the repository's folder. A `sh` block runs in bash, in the folder and with the exported variables
  that the blocks before it left. It fails where a command fails, unless a comment on its line says `# exits with N`.
- What the first page did is not done again where another has it word for word: README.md repeats the quick start.
- A block whose command is `cotenant up …` stays running while the rest of the page is read.
- A block after a paragraph with "Write `NAME`" or "Add to `NAME`" that ends with a colon is put into that file.
  Every other `python` block runs as a script.
- A `text` or `json` block after a `sh` block shows what it prints: a table must have these columns, and these rows by
  their first cell; an error of the API must have this code. Errors that are not shown are failures.
- `127.0.0.1:8080` is the one thing that is replaced: by the port that the test's gateway has.

What cannot run in a test stands in NOT_RUN with its reason. Nothing else is left out.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = {"sh", "python", "yaml", "json", "text", "promql"}
ADDRESS = "127.0.0.1:8080"

NOT_RUN = {
    "make demo": "installs packages; what it starts is run by tests/integration/test_demo.py",
    "make install": "installs packages; the tests run in what it has installed",
    "make test": "runs this test",
    "make bench-wake": "takes minutes; its parts are in tests/unit/benchmarks",
    "make bench-engines": "takes minutes",
    "make bench-accounting": "takes minutes",
    "make bench-gateway": "takes minutes, and installs two peers; its parts are in tests/unit/benchmarks",
    "make bench-loadtest": "takes minutes, and installs GuideLLM and locust; its parts are in tests/unit/benchmarks",
    "make bench-agreement": "takes minutes, and installs GuideLLM; its parts are in tests/unit/benchmarks",
    "make bench-cache": "takes minutes, and installs runai-model-streamer; its parts are in tests/unit/benchmarks",
    "make bench-operator": "takes minutes, and needs a cluster; its parts are in tests/unit/benchmarks",
    "KUBECONFIG=kind.yaml make test-cluster": "needs a cluster; .ci/run does it in one that it makes",
    "make images": "needs docker or buildah, and a network",
    "make images TORCH=cpu": "takes minutes and a network; tests/unit/test_images.py holds what they promise",
    "KEY=$(kubectl get secret first-key --namespace cotenant-system -o jsonpath='{.data.token}' | base64 -d)": (
        "needs a cluster, as the next"
    ),
    """curl -N http://127.0.0.1:8080/v1/chat/completions -H "authorization: Bearer $KEY" -d '{"model": "qwen3", """
    """"stream": true, "messages": [{"role": "user", "content": "Hello"}]}'""": (
        "needs a cluster; tests/cluster/test_first_answer.py does the same"
    ),
    "make check": "a step of its own before the tests",
    ". .venv/bin/activate": "the tests run in the environment that they were started in",
    "pip install 'cotenant[tracing]'": "needs a network; it is among the packages of the tests",
    "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 cotenant up -f models.yaml": (
        "an up runs already; spans are sent to a collector by tests/integration/test_tracing.py"
    ),
    "cotenant loadtest run loadtests/scenarios/noisy-neighbour.yaml": (
        "takes 40 s; its short form is run by tests/integration/test_loadtest_up.py"
    ),
    "cotenant loadtest run azure-replay --set observe.table=true": "takes more than three minutes",
    "cotenant loadtest run chat-steady --url http://gpu-1:8000 --i-may-load-this gpu-1 "
    "--set streams.0.model=Qwen/Qwen3-0.6B --set streams.0.check=shape": "needs another machine with a server",
    "pip install openai": "needs a network; it is among the packages of the tests",
    "pip install 'tritonclient[http]'": "needs a network; it is among the packages of the tests",
}
"""Command (without its comment) → why no test runs it."""

NEEDS_A_CLUSTER = frozenset({"helm", "kind", "kubectl"})
"""Programs whose commands are not run here either: tests/cluster does the same on a real cluster."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_TARGET = re.compile(r"\b(?P<how>Write|Add to) `(?P<name>[\w.-]+)`.*:\s*\Z", re.DOTALL)
_HEREDOC = re.compile(r"<<-?\s*'?(\w+)'?[^\n]*\n.*?^\1$", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_ERROR = re.compile(r'"error": *\{.*"code": *("?\w+"?)')
_EXITS = re.compile(r"# exits with (\d+)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    file: str = ""
    """What the page says it is to be written to."""
    append: bool = False

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Lines of a `sh` block that begin a command, continued ones joined, without here-documents and comments."""
        text = _HEREDOC.sub("", self.text).replace("\\\n", " ")
        return [line for raw in text.splitlines() if (line := bare(raw))]

    @property
    def stays(self) -> bool:
        """It serves until it is ended."""
        return self.language == "sh" and any(line.startswith("cotenant up ") for line in self.commands)

    @property
    def left_out(self) -> bool:
        """Some of it is not run."""
        return any(is_left_out(command) for command in self.commands)

    @property
    def runs(self) -> bool:
        """It has something to do: it is not only shown."""
        return self.language == "sh" or (self.language == "python" and not self.file)

    def script(self, url: str) -> str:
        """For bash: the lines that can run here, with the address of the gateway."""
        lines = [line for line in self.text.splitlines() if not is_left_out(bare(line))]
        return "\n".join(map(_expecting, lines)).replace(ADDRESS, url.removeprefix("http://")) + "\n"


def is_left_out(command: str) -> bool:
    return command in NOT_RUN or needs_a_cluster(command)


def needs_a_cluster(command: str) -> bool:
    return command.partition(" ")[0] in NEEDS_A_CLUSTER


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for match in _FENCE.finditer(text):
        before = text[: match.start()]
        language, body = match.groups()
        target = _TARGET.search(before.rstrip().rpartition("\n\n")[2])
        line = before.count("\n") + 2
        if target and language != "sh":
            found.append(Block(page, line, language, body, target["name"], target["how"] == "Add to"))
        else:
            found.append(Block(page, line, language, body))
    return found


def bare(line: str) -> str:
    """A line of shell without its comment."""
    return _COMMENT.sub("", line).strip()


def invocations(command: str) -> Iterator[list[str]]:
    """Words after each `cotenant` in a line of shell, also inside `$(…)`."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    for index, word in enumerate(words):
        if "$(" in word:
            yield from invocations(word.partition("$(")[2].rpartition(")")[0])
        if word == "cotenant":
            rest = words[index + 1 :]
            end = next((at for at, other in enumerate(rest) if set(other) <= set("|&;()<>")), len(rest))
            yield rest[:end]


def unlike(shown: str, printed: str) -> str:
    """How an output differs from what the page shows after the command: in tables, and in errors of the API."""
    there = "\n".join(first_cells(printed))
    missing = [cell for cell in first_cells(shown) if not re.search(_as_pattern(cell), there, re.MULTILINE)]
    if missing:
        return f"the page shows {missing}, which was not printed"
    wanted, given = (set(_ERROR.findall(text)) for text in (shown, printed))
    return (
        f"the page shows the errors {wanted or 'none'}, but there were {given or 'none'}" if wanted != given else ""
    )


def _as_pattern(cell: str) -> str:
    """`…` stands for columns that are not shown."""
    return f"^{re.escape(cell).replace('…', '.*')}$"


def first_cells(shown: str) -> list[str]:
    """What identifies the tables in an output: each line of headings, and the first cell of each row below it."""
    found = []
    in_table = False
    for line in shown.splitlines():
        if re.fullmatch(r"[A-Z][A-Z/ ]+ [A-Z/ …]+", line):
            found.append(" ".join(line.split()))
            in_table = True
        elif in_table and line.strip():
            found.append(line.split()[0])
        else:
            in_table = False
    return found


def _expecting(line: str) -> str:
    """`cmd  # exits with 3` → a line that fails unless it does."""
    match = _EXITS.search(line)
    if not match:
        return line
    return f"status=0; {line[: match.start()]} || status=$?; [ $status = {match[1]} ]"
