"""The docs say what the code does: generated parts are fresh, and what is written by hand exists."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from scripts import generate_docs

from cotenant_loadtests import exit_codes
from cotenant_operator import caller, cli, estimate, key_book, machine, manifests, state_dir
from cotenant_serving.conductor import conductor, decide, leases
from cotenant_serving.contract import ENGINE_PORTS
from cotenant_serving.engine import guard, heartbeat
from cotenant_serving.gateway import bodies, framing, usage
from cotenant_serving.gateway.connections import Times
from cotenant_serving.gateway.queue import QueueLimits
from cotenant_serving.gateway.state import Settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"])
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
KIND = re.compile(r"^apiVersion: cotenant\.dev/", re.MULTILINE)


def texts() -> dict[str, Any]:
    return yaml.safe_load(generate_docs.TEXTS.read_text())


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    """`cotenant get models` → its options, of every command."""
    inner = getattr(command, "commands", None)
    if inner is None:
        found = {
            name for parameter in command.params if parameter.param_type_name == "option" for name in parameter.opts
        }
        yield " ".join(path), found
        return
    for name, sub in inner.items():
        yield from commands(sub, (*path, name))


def documented_commands() -> dict[str, set[str]]:
    sections = re.split(r"^### `(cotenant [\w -]+)`\n", (DOCS / "cli.md").read_text(), flags=re.MULTILINE)[1:]
    bodies = dict(zip(sections[::2], sections[1::2], strict=True))
    rows = {
        name: re.findall(r"^\| (`-[^|]*) \|", body.split("\n## ")[0], re.MULTILINE) for name, body in bodies.items()
    }
    return {
        name: {option for row in found for option in re.findall(r"`(-[^`]+)`", row)} for name, found in rows.items()
    }


def anchors(page: Path) -> set[str]:
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_generated_parts_are_what_the_code_says_now() -> None:
    ran = subprocess.run(
        [sys.executable, "scripts/generate_docs.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_page_that_differs_from_the_code_is_renewed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- generated: metrics -->\nold\n<!-- end -->\nafter\n")

    made = generate_docs.pages(tmp_path, {"metrics": "new\n"})

    assert made[page] == "before\n<!-- generated: metrics -->\nnew\n<!-- end -->\nafter\n"


def test_a_cell_of_a_table_is_one_line_and_ends_no_column() -> None:
    made = generate_docs.table(("A", "B"), [("one\n\ntwo", "x | y")])

    assert made.splitlines()[2:] == ["| one two | x \\| y |"]


@pytest.mark.parametrize("name", ["unknown", "labels"])
def test_a_part_that_does_not_exist_or_stands_on_no_page_is_an_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(f"<!-- generated: {name} -->\n<!-- end -->\n")

    with pytest.raises(generate_docs.DocsError):
        generate_docs.pages(tmp_path, {"metrics": "", "labels": ""})


@pytest.mark.parametrize(
    ("section", "name"),
    [
        ("errors", "queue_full"),
        ("codes", "context_length_exceeded"),
        ("reasons", "NoRoom"),
        ("labels", "tenant"),
    ],
)
def test_an_error_or_a_reason_without_a_text_is_an_error(section: str, name: str) -> None:
    less = texts()
    del less[section][name]

    with pytest.raises(generate_docs.DocsError, match=name):
        generate_docs.parts(less)


@pytest.mark.parametrize("section", ["errors", "codes", "reasons", "labels"])
def test_a_text_for_something_that_the_code_does_not_have_is_an_error(section: str) -> None:
    more = texts()
    more[section]["made_up"] = {"cause": "none", "do": "nothing"}

    with pytest.raises(generate_docs.DocsError, match="made_up"):
        generate_docs.parts(more)


def test_codes_are_found_with_their_status_wherever_errors_are_made() -> None:
    source = """
raise RequestError(400, "no", code="bad")
raise RequestError(401, "no", type_="authentication_error", code="who")
stream.fail(GenerationError("gone", code="gone"))
class GenerationError(Exception):
    def __init__(self, message, *, code="failed"): ...
"""

    assert {(code.status, code.code, code.type) for code in generate_docs.codes_in(source)} == {
        (400, "bad", "invalid_request_error"),
        (401, "who", "authentication_error"),
        (500, "gone", "server_error"),
        (500, "failed", "server_error"),
    }


def test_cli_md_has_every_command_with_every_option_and_no_other() -> None:
    real = {f"cotenant {name}": options for name, options in commands(typer.main.get_command(cli.app))}

    assert documented_commands() == real


def test_cli_md_has_every_exit_code() -> None:
    listed = set(re.findall(r"^\| (\d+) \|", (DOCS / "cli.md").read_text(), re.MULTILINE))

    loading = {code for code in vars(exit_codes).values() if isinstance(code, int)}
    assert {str(code) for code in {0, cli.EXIT_FAILED, cli.EXIT_MANIFESTS, cli.EXIT_REFUSED, 130} | loading} == listed


def test_cli_md_has_every_field_of_a_usage_record_and_every_token_file() -> None:
    words = set(re.findall(r"`([^`\s]+)`", (DOCS / "cli.md").read_text()))

    assert {*usage.UsageRecord.__struct_fields__, *state_dir.TOKENS} <= words


def test_cli_md_has_the_files_and_variables_of_keys() -> None:
    words = set(re.findall(r"`([^`\s]+)`", (DOCS / "cli.md").read_text()))

    assert {key_book.KEYS_FILE, key_book.SOURCES_FILE, caller.KEY_VARIABLE, "NO_COLOR"} <= words
    assert f"{caller.KEY_LIVES_S / 60:.0f} minutes after its last use" in (DOCS / "cli.md").read_text()


@pytest.mark.parametrize(
    ("page", "claims"),
    [
        (
            "sharing.md",
            [
                f"share + {guard.TOLERANCE:.0%}".replace("%", " %"),
                f"every {guard.PERIOD_S} s",
                f"pages of {estimate.PAGE_TOKENS}",
                "at most {cpu} on cpu and {cuda} on cuda, or one text".format(**estimate.PASS_TOKENS),
                f"{estimate.TENSOR_GUESS_BYTES >> 20} MiB. `gpu.memory` overrules",
                f"one pass of {estimate.BATCH_TOKENS} tokens",
                f"have {QueueLimits().per_tenant} requests waiting, a gateway {QueueLimits().total}",
                f"{machine.CUDA_PART * 100:.0f} % of each GPU and {machine.CPU_PART * 100:.0f} % of host memory",
                f"… {decide.BACKOFF_MOST_S:.0f} s",
            ],
        ),
        (
            "security.md",
            [
                f"Headers: {framing.MAX_HEAD_BYTES >> 10} KiB, {framing.MAX_HEADERS} lines",
                f"lines and {Times().header_s:.0f} s; an idle connection: {Times().idle_s:.0f} s",
                f"in all there are {Settings().max_connections}, ",
                f"of one tenant {Settings().max_connections_per_tenant}",
                f"Body: {Settings().max_body_bytes >> 20} MiB and {Settings().body_timeout_s:.0f} s, "
                f"{Settings().max_body_bytes * bodies.BINARY_TIMES >> 20} MiB with binary tensors",
                f"answers included: {bodies.HELD_BYTES >> 20} MiB, {bodies.HELD_BYTES >> 21} MiB of one tenant",
                f"Request: {Settings().hold_timeout_s:.0f} s of waiting, {Settings().request_timeout_s:.0f} s in all",
                f"{QueueLimits().per_tenant} per tenant and {QueueLimits().total} per gateway",
                f"ports {ENGINE_PORTS[0]} to {ENGINE_PORTS[-1]}",
            ],
        ),
        ("architecture.md", [f"{conductor.ADOPT_S:.0f} s at most", f"Every {heartbeat.PERIOD_S} s"]),
        ("cli.md", [f"up to {Settings().drain_timeout_s:.0f} s", f"again every {usage.RETRY_S} s"]),
        (
            "errors.md",
            [
                f"more than {Settings().max_body_bytes >> 20} MiB",
                f"within the {Settings().hold_timeout_s:.0f} s that a request may wait",
                f"{QueueLimits().per_tenant} requests of the tenant wait",
            ],
        ),
    ],
)
def test_numbers_in_the_docs_are_those_of_the_code(page: str, claims: list[str]) -> None:
    text = " ".join((DOCS / page).read_text().split())

    assert [claim for claim in claims if claim not in text] == []


def test_the_start_lease_lapses_when_the_docs_say() -> None:
    from tests.builders.conductor import args, beat, device, spec

    held = leases.Leases(now_s=0.0)
    here = args(spec())
    assert held.answer(beat(here, state="waiting"), 10.0)

    assert "it lapses 3 s after the last" in " ".join((DOCS / "sharing.md").read_text().split())
    assert held.holder(device().id, 12.9)
    assert not held.holder(device().id, 13.0)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_yaml_of_our_kinds_passes_the_loader(page: Path, tmp_path: Path) -> None:
    blocks = [body for kind, body in FENCED.findall(page.read_text()) if kind == "yaml" and KIND.search(body)]

    for number, body in enumerate(blocks):
        file = tmp_path / f"{number}.yaml"
        file.write_text(body)
        manifests.load([file])


def test_the_page_about_yaml_shows_the_example_of_eight_lines() -> None:
    example = (ROOT / "examples" / "eight-line.yaml").read_text()

    assert len(example.splitlines()) == 8
    assert example in (DOCS / "yaml.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    broken = []
    for link in LINK.findall(FENCED.sub("", page.read_text())):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)

    assert broken == []


def test_the_folder_operator_shadows_no_module_of_the_standard_library() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_the_version_agrees_with_the_changelog() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    released = [heading for heading in headings if heading != "Unreleased"]
    if headings[0] == "Unreleased":  # the version is the newest release, or the one that comes next
        assert all(numbers(version) >= numbers(heading) for heading in released)
    else:
        assert headings[0] == version


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
