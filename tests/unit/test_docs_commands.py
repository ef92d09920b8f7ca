"""Commands, YAML, Python and JSON in README.md and docs/ are what the code takes; tests/integration runs them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from scripts import generate_docs
from tests.builders import docs
from tests.builders.docs import PAGES, ROOT, Block

from cotenant_operator import cli

INLINE = re.compile(r"`([^`\n]+)`")
EXAMPLE_KINDS = re.compile(r"^kind: (ModelDeployment|Tenant|GPUPool|Secret)$", re.MULTILINE)
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def of(page: Path, language: str) -> list[Block]:
    return [block for block in docs.blocks(page) if block.language == language]


def parse(words: list[str]) -> None:
    """As the command line would, to the point where it would run. Raises what a user would see."""
    command: Any = typer.main.get_command(cli.app)
    path = ["cotenant"]
    while subcommands := getattr(command, "commands", None):
        assert words, f"{' '.join(path)} needs a command"
        assert words[0] in subcommands, f"{' '.join(path)} has no command {words[0]!r}"
        command, words = subcommands[words[0]], words[1:]
        path.append(command.name)
        if words == ["--help"]:
            return
    command.make_context(" ".join(path), words)


@every_page
def test_every_block_says_what_it_is(page: Path) -> None:
    assert {block.language for block in docs.blocks(page)} <= docs.LANGUAGES


@every_page
def test_no_command_hides_in_an_indented_block(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)

    assert re.findall(r"(?:\A|\n\n) {4,}\S.*", text) == []


@every_page
def test_every_cotenant_command_exists_with_its_options(page: Path) -> None:
    for block in of(page, "sh"):
        for command in (line for line in block.commands if not docs.needs_a_cluster(line)):
            for words in docs.invocations(command):
                if words[:1] != ["--help"]:
                    parse(words)


@every_page
def test_every_command_in_a_sentence_exists(page: Path) -> None:
    """`cotenant explain model NAME`: the options that it names, too. It need not be complete."""
    root: Any = typer.main.get_command(cli.app)
    for code in INLINE.findall(re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)):
        words = code.split()
        if words[:1] != ["cotenant"] or len(words) == 1 or words[1] in ("--help", "COMMAND"):
            continue
        command, rest = root, words[1:]
        while rest and (found := getattr(command, "commands", {}).get(rest[0].partition("|")[0])):
            command, rest = found, rest[1:]
        assert command is not root, f"{code!r}: there is no such command"
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        assert {word.partition("=")[0] for word in rest if word.startswith("-")} <= {*known, "--help"}, code


@every_page
def test_every_make_target_exists(page: Path) -> None:
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = [line.split()[1] for block in of(page, "sh") for line in block.commands if line.startswith("make ")]

    assert set(named) <= set(targets)


@every_page
def test_python_blocks_compile(page: Path) -> None:
    for block in of(page, "python"):
        compile(block.text, block.place, "exec")


@every_page
def test_yaml_and_json_blocks_parse(page: Path) -> None:
    for block in of(page, "yaml"):
        assert list(yaml.safe_load_all(block.text)), block.place
    for block in of(page, "json"):
        json.loads(block.text)


def test_queries_name_metrics_and_labels_that_exist() -> None:
    known = {name.strip("`"): set(re.findall(r"`(\w+)`", labels)) for name, _, labels, _ in generate_docs.metrics()}
    for page in PAGES:
        for block in of(page, "promql"):
            named = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"cotenant_\w+", block.text)}
            used = re.findall(r"(\w+)!?[=~]+\"", block.text) + re.findall(r"by \(([\w, ]+)\)", block.text)
            labels = {label.strip() for found in used for label in found.split(",")} - {"le"}

            assert named <= set(known), block.place
            assert labels <= set().union(*known.values()), block.place


def test_each_exception_names_a_command_that_a_page_has() -> None:
    lines = {docs.bare(line) for page in PAGES for block in of(page, "sh") for line in block.text.splitlines()}

    assert set(docs.NOT_RUN) - lines == set()


def test_a_page_says_which_file_a_block_is_for(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Now. Write `a.yaml`, for two:\n\n```yaml\na: 1\n```\nAdd to `a.yaml`:\n```yaml\nb: 2\n```\n")

    assert [(block.file, block.append, block.line) for block in docs.blocks(page)] == [
        ("a.yaml", False, 4),
        ("a.yaml", True, 8),
    ]


def test_cotenant_is_found_wherever_a_shell_would_run_it() -> None:
    line = 'export KEY="$(cotenant get tenants -o json | jq .x)" && cotenant plan -f a.yaml > out; mycotenant x'

    assert list(docs.invocations(line)) == [["get", "tenants", "-o", "json"], ["plan", "-f", "a.yaml"]]


def test_what_needs_a_cluster_is_left_out() -> None:
    block = Block(
        ROOT / "README.md", 1, "sh", "kubectl get mdep  # what runs\nhelm test cotenant\ncotenant version\n"
    )

    assert block.left_out
    assert block.script("http://127.0.0.1:9") == "cotenant version\n"


def test_a_comment_says_which_failure_is_meant() -> None:
    block = Block(
        ROOT / "README.md", 1, "sh", "make demo\nplan -f .   # exits with 3: refused\ncurl http://127.0.0.1:8080/x\n"
    )

    assert block.script("http://127.0.0.1:9") == (
        "status=0; plan -f .    || status=$?; [ $status = 3 ]\ncurl http://127.0.0.1:9/x\n"
    )


@pytest.mark.parametrize(
    ("shown", "printed", "like"),
    [
        ("", "anything at all", True),
        ("MODEL  STATE\na/b    cold\n", "MODEL    STATE\na/b      ready\na/c      cold\n", True),
        ("MODEL  STATE\na/b    cold\n", "MODEL  STATE  REASON\na/b    cold   Idle\n", False),
        ("MODEL  STATE\na/b    cold\n", "MODEL  STATE\na/c    cold\n", False),
        ("MODEL  …  REASON\na/b    …  Idle\n", "MODEL  STATE  REASON\na/b    cold   Idle\n", True),
        ("MODEL  …  MESSAGE\na/b    …  no\n", "MODEL  STATE  REASON\na/b    cold   Idle\n", False),
        ("", '{"error":{"message":"no","type":"t","param":null,"code":"bad"}}', False),
        ('{"error": {"message": "x", "code": "bad"}}', '{"error":{"message":"no","param":null,"code":"bad"}}', True),
        (
            '{"error": {"message": "x", "code": "bad"}}',
            '{"error":{"message":"no","param":null,"code":"worse"}}',
            False,
        ),
    ],
)
def test_what_a_page_shows_is_compared_by_what_identifies_it(shown: str, printed: str, like: bool) -> None:
    assert (docs.unlike(shown, printed) == "") is like
