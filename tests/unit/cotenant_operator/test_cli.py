import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import yaml
from tests.builders.small_gateway import SmallGateway

from cotenant_operator import cli
from cotenant_operator.created_keys import hash_of
from cotenant_serving.contract import ModelStatus, PoolStatus, Reason
from cotenant_serving.contract_gateway import GatewayConfig, GatewayModel, GatewayTenant, Limits

ECHO = """\
apiVersion: cotenant.dev/v1alpha1
kind: ModelDeployment
metadata: {name: echo}
spec:
  task: echo
"""
POOL = """\
---
apiVersion: cotenant.dev/v1alpha1
kind: GPUPool
metadata: {name: default}
spec:
  workers: [{name: cpu, device: cpu, memory: 512Mi}]
"""
ROOT = Path(__file__).parents[3]


class Ran:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Run = Callable[..., Ran]


@pytest.fixture
def cotenant(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    monkeypatch.setenv("COTENANT_STATE", str(tmp_path / "state"))

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["cotenant", *arguments])
        try:
            code = cli.main()
        except SystemExit as stop:  # completion ends so
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


def written(tmp_path: Path, text: str) -> str:
    file = tmp_path / "models.yaml"
    file.write_text(text)
    return str(file)


def test_a_plan_that_fits_exits_with_0_and_writes_nothing(cotenant: Run, tmp_path: Path) -> None:
    ran = cotenant("plan", "-f", written(tmp_path, ECHO + POOL))

    assert ran.code == 0
    header, row = ran.out.splitlines()
    assert header.split()[:4] == ["MODEL", "TASK", "POOL", "PLAN"]
    assert row.split()[:4] == ["default/echo", "echo", "default", "accepted"]
    assert not (tmp_path / "state").exists()


def test_a_wide_plan_shows_plain_bytes_and_what_the_engine_is_told(cotenant: Run, tmp_path: Path) -> None:
    header, row = cotenant("plan", "-o", "wide", "-f", written(tmp_path, ECHO + POOL)).out.splitlines()

    assert {"FLOOR", "WANTED", "CONCURRENCY"} <= set(header.split())
    assert "234881024" in row.split()


def test_a_plan_that_refuses_exits_with_3(cotenant: Run, tmp_path: Path) -> None:
    ran = cotenant("plan", "-o", "json", "-f", written(tmp_path, ECHO + "  engine: {allocate: 2Gi}\n" + POOL))

    assert ran.code == 3
    assert json.loads(ran.out)["models"]["default/echo"]["refused"]["reason"] == "DoesNotFit"


def test_a_mistake_in_a_file_exits_with_2_and_no_traceback(cotenant: Run, tmp_path: Path) -> None:
    ran = cotenant("plan", "-f", written(tmp_path, ECHO + "  pol: default\n"))

    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        f"error: {tmp_path}/models.yaml:6: spec.pol: unknown field; did you mean 'pool'? "
        "allowed: model, task, gpu, replicas, tenants, engine, pool\n"
    )


@pytest.mark.parametrize("arguments", [["frobnicate"], ["plan"], ["plan", "-o", "xml"], ["get", "modles"]])
def test_a_mistake_in_the_flags_exits_with_2(cotenant: Run, arguments: list[str]) -> None:
    ran = cotenant(*arguments)

    assert ran.code == 2
    assert ran.err.startswith("error: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["get", "models"],
        ["get", "pools"],
        ["get", "tenants"],
        ["explain", "model", "x"],
        ["key", "list"],
        ["key", "create", "x"],
    ],
)
def test_asking_when_nothing_runs_says_how_to_start(cotenant: Run, arguments: list[str]) -> None:
    ran = cotenant(*arguments)

    assert ran.code == 1
    assert "nothing runs on the state directory" in ran.err
    assert "cotenant up -f FILE" in ran.err


def test_tenants_are_shown_without_their_keys(cotenant: Run, tmp_path: Path) -> None:
    tenant = GatewayTenant(
        name="search", key_sha256=("f00d" * 16,), models=("search/m",), limits=Limits(requests_per_minute=5)
    )
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "gateway.json").write_bytes(
        msgspec.json.encode(GatewayConfig(generation=1, tenants=(tenant,)))
    )

    assert "search     1             5" in cotenant("get", "tenants").out
    for output in ("json", "yaml", "wide"):
        assert "f00d" not in cotenant("get", "tenants", "-o", output).out


def test_wide_tenants_name_the_task_of_each_model(cotenant: Run, tmp_path: Path) -> None:
    published(tmp_path)

    assert "ads/echo, search/chat\n" in cotenant("get", "tenants").out
    assert "ads/echo (echo), search/chat (generate)\n" in cotenant("get", "tenants", "-o", "wide").out


def test_what_a_conductor_says_steers_no_terminal(cotenant: Run, tmp_path: Path) -> None:
    said = "\x1b]0;mine\x07 is gone"
    model = ModelStatus(model="a/b", state="failed", reason=Reason.FILE_MISSING, message=said, explanation=(said,))
    status = msgspec.to_builtins(PoolStatus(pool="default", epoch="e", generation=1, models=(model,)))
    state = tmp_path / "state"
    state.mkdir()
    (state / "token").write_text("t")
    with SmallGateway(lambda path, body, key: (200, status)) as conductor:
        urls = {"conductor_url": conductor.url, "gateway_url": conductor.url}
        control = {**urls, "control_token_file": str(state / "token"), "pid": os.getpid()}
        (state / "control.json").write_text(json.dumps(control))
        shown = [cotenant("explain", "model", "b").out, cotenant("get", "models").out]

    assert ["]0;mine is gone" in text for text in shown] == [True, True]
    assert not any(char in text for text in shown for char in "\x1b\x07")


def published(tmp_path: Path) -> Path:
    """A state directory in which an `up` has run once, with the tenants search and ads."""
    tenants = (
        GatewayTenant(name="search", key_sha256=("f00d" * 16,), models=("search/chat",)),
        GatewayTenant(name="ads", models=("ads/echo", "search/chat")),
    )
    models = (GatewayModel(name="search/chat", task="generate"), GatewayModel(name="ads/echo", task="echo"))
    config = GatewayConfig(generation=1, tenants=tenants, models=models)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "gateway.json").write_bytes(msgspec.json.encode(config))
    return tmp_path / "state"


def test_a_key_is_printed_once_listed_by_its_id_counted_and_revoked(cotenant: Run, tmp_path: Path) -> None:
    published(tmp_path)
    created = cotenant("key", "create", "ads")
    key = created.out.strip()
    assert created.code == 0
    assert key.startswith("ct-")
    assert key not in created.err

    (listed,) = json.loads(cotenant("key", "list", "ads", "-o", "json").out)
    assert listed["id"] == hash_of(key)[:12]
    assert cotenant("get", "tenants").out.splitlines()[2].split()[:2] == ["ads", "1"]

    assert cotenant("key", "revoke", listed["id"]).code == 0
    assert json.loads(cotenant("key", "list", "ads", "-o", "json").out) == []


def test_a_key_stands_in_no_file_and_in_no_later_output(cotenant: Run, tmp_path: Path) -> None:
    state = published(tmp_path)
    key = cotenant("key", "create", "ads").out.strip()

    for output in ("table", "wide", "json", "yaml"):
        assert key not in cotenant("key", "list", "-o", output).out
    assert [path for path in state.rglob("*") if path.is_file() and key in path.read_text()] == []


def test_a_plan_counts_created_keys(cotenant: Run, tmp_path: Path) -> None:
    published(tmp_path)
    cotenant("key", "create", "ads")
    tenant = "---\napiVersion: cotenant.dev/v1alpha1\nkind: Tenant\nmetadata: {name: ads}\nspec: {}\n"
    ran = cotenant("plan", "-o", "yaml", "-f", written(tmp_path, ECHO + POOL + tenant))

    assert yaml.safe_load(ran.out)["tenants"]["ads"]["keys"] == 1
    assert "only keys that `cotenant key create ads` makes" in ran.err


def test_a_key_for_an_unknown_tenant_is_refused_with_the_nearest_name(cotenant: Run, tmp_path: Path) -> None:
    state = published(tmp_path)
    ran = cotenant("key", "create", "serch")

    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "error: there is no tenant 'serch'; did you mean 'search'? known: ads, search\n"
    assert not (state / "keys.json").exists()


def test_a_key_of_a_file_is_not_revoked_here_and_an_unknown_one_gets_a_hint(cotenant: Run, tmp_path: Path) -> None:
    published(tmp_path)

    assert "take it out there" in cotenant("key", "revoke", "f00df00df00d").err
    assert "there is no key 'beef'" in cotenant("key", "revoke", "beef").err


@pytest.mark.parametrize("kind", ["models", "tenants", "pools"])
def test_every_format_is_offered_by_get(cotenant: Run, kind: str) -> None:
    assert "table|wide|json|yaml" in cotenant("get", kind, "--help").out


def test_the_state_directory_follows_the_environment_at_call_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COTENANT_STATE", "/somewhere")
    assert cli.default_state() == Path("/somewhere")
    monkeypatch.delenv("COTENANT_STATE")
    monkeypatch.setenv("HOME", "/home/me")
    assert cli.default_state() == Path("/home/me/.local/state/cotenant")


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['cotenant', '--help']; from cotenant_operator.cli import main; main(); "
        "heavy = ('pydantic', 'msgspec', 'yaml', 'ray', 'torch', 'huggingface_hub'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "name",
    ["two-tenants.yaml", "embed.yaml", "gpu-pool.yaml", "eight-line.yaml", "own-folder.yaml", "first-tenant.yaml"],
)
def test_the_examples_are_valid(name: str) -> None:
    from cotenant_operator.manifests import load

    assert load([ROOT / "examples" / name])


def test_the_eight_line_example_has_eight_lines() -> None:
    assert len((ROOT / "examples" / "eight-line.yaml").read_text().splitlines()) == 8


def test_usage_without_numbers_says_where_they_come_from(cotenant: Run, tmp_path: Path) -> None:
    assert "nothing runs on the state directory" in cotenant("usage").err
    state = published(tmp_path)

    ran = cotenant("usage", "-o", "json")

    assert ran.code == 0
    assert json.loads(ran.out)["total"]["requests"] == 0
    assert f"{state}/gateway/usage.jsonl" in ran.err


def test_usage_leaves_damaged_lines_out_and_says_so(cotenant: Run, tmp_path: Path) -> None:
    folder = published(tmp_path) / "gateway"
    folder.mkdir()
    (folder / "usage.jsonl").write_text("not a record\n")

    assert "1 lines of" in cotenant("usage").err


@pytest.mark.parametrize("arguments", [["usage", "--by", "tennant"], ["usage", "--since", "soon"]])
def test_a_value_that_an_option_cannot_have_exits_with_2(cotenant: Run, arguments: list[str]) -> None:
    assert cotenant(*arguments).code == 2


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("cotenant logs se", ["search/chat"]),
        ("cotenant logs ", ["chat", "echo", "ads/echo", "search/chat"]),
        ("cotenant chat --tenant a", ["ads"]),
        ("cotenant key create s", ["search"]),
        ("cotenant ke", ["key"]),
    ],
)
def test_the_shell_completes_models_and_tenants(
    cotenant: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str, offered: list[str]
) -> None:
    published(tmp_path)
    monkeypatch.setenv("_COTENANT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))

    assert sorted(cotenant().out.split()) == sorted(offered)


def test_the_shell_completes_keys_that_can_be_revoked(
    cotenant: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    published(tmp_path)
    key = cotenant("key", "create", "ads").out.strip()
    monkeypatch.setenv("_COTENANT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "cotenant key revoke ")
    monkeypatch.setenv("COMP_CWORD", "3")

    assert cotenant().out.split() == [hash_of(key)[:12]]


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"keys": 7}', '{"keys": [7, {}, {"sha256": []}]}', '{"keys": {"a": 1}}', "[" * 100_000]
)
def test_completion_is_silent_about_damaged_files(
    cotenant: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    state = published(tmp_path)
    (state / "keys.json").write_text(content)
    (state / "gateway.json").write_text(content.replace("keys", "models").replace("sha256", "name"))
    monkeypatch.setenv("_COTENANT_COMPLETE", "complete_bash")
    for words in ("cotenant key revoke ", "cotenant logs "):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
        ran = cotenant()
        assert (ran.out.strip(), ran.err) == ("", "")


def test_completion_is_silent_where_nothing_was_published(cotenant: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"_COTENANT_COMPLETE": "complete_bash", "COMP_WORDS": "cotenant logs x", "COMP_CWORD": "2"}
    for name, value in asked.items():
        monkeypatch.setenv(name, value)

    ran = cotenant()
    assert (ran.out.strip(), ran.err) == ("", "")


def test_version_tells_more_when_asked(cotenant: Run) -> None:
    assert cotenant("version").out.startswith("cotenant ")
    assert set(json.loads(cotenant("version", "-o", "json").out)) >= {"cotenant", "python", "torch"}


def test_a_program_that_is_not_installed_says_so_and_examines_the_machine(
    cotenant: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata.Distribution, "discover", lambda **_: iter(()))
    assert cotenant("version").out == "cotenant 0 (not installed: it runs from its source tree)\n"
    assert "cotenant runs from its source tree" in cotenant("doctor").out


def test_without_any_up_chat_says_how_to_reach_a_gateway_elsewhere(cotenant: Run) -> None:
    ran = cotenant("chat", "search/chat", "-m", "hello")

    assert ran.code == 1
    assert "For a gateway elsewhere, as that of a cluster, give --url and a key" in ran.err
