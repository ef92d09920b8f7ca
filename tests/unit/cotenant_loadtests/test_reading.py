"""YAML → Scenario: every problem at once, each with its line and field."""

from pathlib import Path
from typing import Any

import pytest

from cotenant_loadtests.reading import ScenarioError, read_scenario, scenario_path
from cotenant_loadtests.spec_values import Constant, Fixed, Names

GOOD = """\
name: small
duration_s: 10
tenants:
  search: {key: {env: SEARCH_KEY}}
streams:
- name: chat
  tenant: search
  model: m
  arrivals: {process: poisson, rate_per_s: 2}
  prompt: {tokens: 20}
  output: {tokens: 10}
- name: batch
  tenant: [ads, mail]
  model: m
  arrivals: {process: constant, rate_per_s: 1}
  prompt: {tokens: 20}
  output: {tokens: 10}
"""
MANY_MERGES = "a: &a {}\n" + "".join(
    f"{name}: &{name}\n  <<: [" + ", ".join([f"*{before}"] * 9) + "]\n"
    for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
"""A billion laughs with mappings in place of texts."""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return path


def problems(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    path = written(tmp_path, text)
    with pytest.raises(ScenarioError) as caught:
        read_scenario(path, overrides)
    return str(caught.value).replace(f"{path}:", "").split("\n")


def changed(*changes: tuple[str, str]) -> str:
    text = GOOD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def test_a_scenario_is_read_with_its_shorthands(tmp_path: Path) -> None:
    scenario = read_scenario(written(tmp_path, GOOD))
    assert scenario.streams[0].tenant == Names(names=("search",))
    assert scenario.streams[1].tenant == Names(names=("ads", "mail"))
    assert scenario.streams[0].prompt is not None
    assert scenario.streams[0].prompt.tokens == Fixed(value=20)


def test_all_problems_are_told_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    text = changed(("duration_s: 10", "duration: ten"), ("poisson", "poison"), ("model: m\n", "modell: m\n"))
    assert problems(tmp_path, text) == [
        "2: duration: is no field of a scenario here; did you mean 'duration_s'? allowed: name, about, seed, target, "
        "tenants, duration_s, warmup_s, cooldown_s, drain_s, processes, streams, goodput, slo, limits, observe",
        "6: streams.0.model: is missing",
        "8: streams.0.modell: is no field of a scenario here; did you mean 'model'? allowed: name, tenant, model, "
        "api, arrivals, prompt, output, conversation, inputs, streamed, include_usage, cancel_after_tokens, "
        "deadline_s, from_s, to_s, check, body",
        "9: streams.0.arrivals: \"poison\" is not allowed; did you mean 'poisson'? allowed: constant, poisson, "
        "gamma, on_off, ramp, steps, trace",
    ]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("duration_s: 10", "duration_s: ten", '2: duration_s: "ten" must be a number'),
        ("duration_s: 10", "duration_s: 1.0e+12", "2: duration_s: 1000000000000.0 must be at most 1,000,000,000"),
        ("duration_s: 10", "duration_s: -1", "2: duration_s: -1 must be greater than 0"),
        ("duration_s: 10", "duration_s: .inf", "2: duration_s: Infinity must be a finite number"),
        ("name: small", "name: Small!", "must be 1 to 63 lower-case letters, digits and '-'"),
        ("rate_per_s: 2", "rate_per_s: 2, burst: 1", "9: streams.0.arrivals.burst: is no field"),
        ("{process: poisson, rate_per_s: 2}", "{rate_per_s: 2}", "9: streams.0.arrivals: must be a mapping with"),
        ("{process: poisson, rate_per_s: 2}", "often", '9: streams.0.arrivals: "often" must be a mapping of fields'),
        ("tenant: [ads, mail]", "tenant: [ads, 7]", "13: streams.1.tenant.1: 7 must be text"),
        ("tenant: [ads, mail]", "tenant: []", "13: streams.1.tenant: must not be empty"),
        ("tenant: [ads, mail]", "tenant: {names: [a], zip: 1}", "did you mean 'zipf'? allowed: names, zipf"),
        (
            "prompt: {tokens: 20}",
            "prompt: {tokens: many}",
            '10: streams.0.prompt.tokens: "many" must be a number, or a mapping with distribution',
        ),
        (
            "prompt: {tokens: 20}",
            "prompt: {tokens: {distribution: lognormal, sigma: 1, mean: 3}}",
            "10: streams.0.prompt.tokens.mean: is no field of a scenario here; did you mean 'median'? "
            "allowed: distribution, median, sigma, min, max",
        ),
        ("output: {tokens: 10}", "output: 10", "11: streams.0.output: 10 must be a mapping of fields"),
        ("duration_s: 10", "slo: {success_rate: {ads: often}}", '2: slo.success_rate.ads: "often" must be a number'),
        ("duration_s: 10", "slo: {success_rate: []}", "2: slo.success_rate: must be a number"),
        ("streams:", "strands:", "is missing"),
    ],
)
def test_a_wrong_value_is_shown_with_what_is_allowed(tmp_path: Path, old: str, new: str, problem: str) -> None:
    found = problems(tmp_path, changed((old, new)))
    assert any(problem in line for line in found), found


@pytest.mark.parametrize(
    "value",
    ["sk-secret", "{env: 3, value: sk-secret}", "[sk-secret]", "{file: [sk-secret]}", "{env: sk-secret}"],
)
def test_a_key_that_stands_in_the_file_is_never_shown(tmp_path: Path, value: str) -> None:
    text = changed(("{env: SEARCH_KEY}", value))
    assert "sk-secret" not in "".join(problems(tmp_path, text))
    assert "sk-secret" not in "".join(problems(tmp_path, GOOD, f"tenants.search.key={value}"))


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("tenants.search=sk-secret", "tenants.search: must be a mapping of fields"),
        ("tenants=sk-secret", "tenants: must be a mapping"),
        ("target=http://user:sk-secret@host", "target: must be a mapping of fields"),
        ("target.verify_tls=sk-secret", "target.verify_tls: must be true or false"),
        ("target.ca_file={a: sk-secret}", "target.ca_file: must be text"),
        ("observe=http://host/?token=sk-secret", "observe: must be a mapping of fields"),
        ("observe.metrics=sk-secret", "observe.metrics: must be a list"),
    ],
)
def test_a_key_or_password_in_the_wrong_place_is_not_shown_either(
    tmp_path: Path, override: str, problem: str
) -> None:
    assert problems(tmp_path, GOOD, override) == [f"--set {problem}"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "1: is no scenario: begin with name, duration_s and streams"),
        ("- a\n", "1: is no scenario: begin with name, duration_s and streams"),
        ("name: a\nname: b\n", "2: 'name' stands here again, after line 1"),
        ("name: a\nstreams: [\n", "3: is not YAML: expected the node content"),
        ("name: a\n\tseed: 1\n", "2: a tab stands where YAML allows only spaces"),
        ("name: sk-secret: b\n", "1: is not YAML: mapping values are not allowed here"),
        ("name: *sk-secret\n", "1: is not YAML: found undefined alias"),
        ("name: !sk-secret x\n", "1: a tag is not allowed; quote a value that begins with '!'"),
        ("name: !!python/object:os.system x\n", "1: a tag is not allowed; quote a value that begins with '!'"),
        ("name: a\n---\nname: b\n", "2: a second document begins; a scenario is one"),
        ("1: a\n", "1: a key is not text; quote it"),
        ("{[a]: b}\n", "1: a key is not text; quote it"),
        ("a: &a [*a]\n", "1: is nested too deep, or an alias stands within what it names"),
        ("a: " + "[" * 500 + "]" * 500, "1: is nested too deep, or an alias stands within what it names"),
        ("a: 1\nb: \x01\n", "1: has characters that YAML does not allow"),
        ("a: &a [x, x, x, x, x, x, x, x, x]\n", "aliases count each time"),
        (MANY_MERGES, "aliases count each time"),
        ("name: !!bool sk-secret\n", "1: is no value of its type; quote text"),
        ("name: !!int ''\n", "1: is no value of its type; quote text"),
        ("name: !!float ''\n", "1: is no value of its type; quote text"),
        ("#" * (2**20 + 1), "1: the file has more than 1048576 bytes"),
    ],
)
def test_what_is_not_our_yaml_is_refused_without_quoting_it(tmp_path: Path, text: str, problem: str) -> None:
    if text.startswith("a: &a [x"):  # a billion laughs
        for before, name in zip("abcdef", "bcdefg", strict=True):
            text += f"{name}: &{name} [" + ", ".join([f"*{before}"] * 9) + "]\n"
    found = problems(tmp_path, text)
    assert len(found) == 1
    assert problem in found[0]
    assert "sk-secret" not in found[0]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: f\xfcr\n")
    for path, reason in (
        (tmp_path / "latin.yaml", "is not text in UTF-8"),
        (tmp_path, "cannot be read: Is a directory"),
    ):
        with pytest.raises(ScenarioError) as caught:
            read_scenario(path)
        assert str(caught.value) == f"{path}: {reason}"


def test_streams_may_share_what_they_have_alike(tmp_path: Path) -> None:
    text = (
        GOOD
        + "- &base {name: c, tenant: ads, model: m, arrivals: &often {process: constant, rate_per_s: 5}, prompt: "
    )
    text += "{tokens: 2}, output: {tokens: 3}}\n- {<<: *base, name: d, arrivals: {<<: *often, rate_per_s: 7}}\n"
    streams = read_scenario(written(tmp_path, text)).streams
    assert [stream.name for stream in streams] == ["chat", "batch", "c", "d"]
    assert streams[3].output == streams[2].output
    assert streams[3].arrivals == Constant(process="constant", rate_per_s=7)


# Overrides


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("duration_s=5", "duration_s", 5.0),
        ("target.url=http://127.0.0.1:99", "target.url", "http://127.0.0.1:99"),
        ("streams.1.arrivals.rate_per_s=7", "streams.1.arrivals.rate_per_s", 7.0),
        ("streams.batch.arrivals.rate_per_s=7", "streams.1.arrivals.rate_per_s", 7.0),
        ("streams.chat.body={temperature: 0}", "streams.0.body", {"temperature": 0}),
        ("about=", "about", ""),
        ('slo.success_rate."search/m"=0.5', "slo", {"success_rate": {"search/m": 0.5}}),
        ("'about'=x", "about", "x"),
    ],
)
def test_an_override_sets_a_field(tmp_path: Path, override: str, field: str, value: Any) -> None:
    if value == "":
        override = 'about=""'
    found: Any = read_scenario(written(tmp_path, GOOD), [override]).model_dump()
    for part in field.split("."):
        found = found[int(part) if part.isdecimal() else part]
    assert found == value


@pytest.mark.parametrize("quoted", ['"t/llama-3.1"', "'t/llama-3.1'"])
def test_a_name_with_dots_stands_in_quotes_in_an_override(tmp_path: Path, quoted: str) -> None:
    text = changed(("tenant: search\n  model: m", "tenant: t\n  model: llama-3.1"), ("tenants:\n", ""))
    text = text.replace("  search: {key: {env: SEARCH_KEY}}\n", "")
    path = written(tmp_path, text)
    assert read_scenario(path, [f"slo.ttft_p99_ms.{quoted}=5"]).slo == {"ttft_p99_ms": {"t/llama-3.1": 5}}
    with pytest.raises(ScenarioError, match=r"slo\.ttft_p99_ms\.t/llama-3: must be a number"):
        read_scenario(path, ["slo.ttft_p99_ms.t/llama-3.1=5"])


def test_the_last_of_several_overrides_wins(tmp_path: Path) -> None:
    assert read_scenario(written(tmp_path, GOOD), ["seed=4", "seed=5"]).seed == 5


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("duration_s", "--set: 'duration_s' is no field=value, such as duration_s=10"),
        ("=5", "--set: names no field before '='; say FIELD=VALUE, such as duration_s=10"),
        ("duration_s=[", "--set duration_s: the value is not YAML: expected the node content"),
        ("duration_s=ten", '--set duration_s: "ten" must be a number'),
        ("durations_s=10", "--set durations_s: is no field of a scenario here; did you mean 'duration_s'?"),
        ("streams.5.name=a", "--set streams.5.name: streams: has no item 5; it has 2, counted from 0"),
        ("streams.chatt.name=a", "--set streams.chatt.name: streams: has no item 'chatt'; it has 2, counted from 0"),
        (
            "streams.0.model.zipf=1",
            "--set streams.0.model.zipf: streams.0.model: is a single value here and has no fields",
        ),
        ("streams.1.name=chat", "--set streams.1.name: 'chat' is also that of streams.0"),
        ("warmup_s=60", "--set warmup_s: with cooldown_s it is 60 s of a run of 10 s"),
    ],
)
def test_a_wrong_override_is_named(tmp_path: Path, override: str, problem: str) -> None:
    found = problems(tmp_path, GOOD, override)
    assert len(found) == 1
    assert found[0].startswith(problem)


# Where scenarios are


def test_a_scenario_is_a_file_or_the_name_of_one_that_comes_with_cotenant(tmp_path: Path) -> None:
    assert scenario_path(str(written(tmp_path, GOOD))) == tmp_path / "s.yaml"
    assert read_scenario(scenario_path("noisy-neighbour")).name == "noisy-neighbour"


def test_a_name_that_is_neither_is_refused_with_the_closest() -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario_path("noisy-neighbor")
    assert "there is no such file, and no scenario of that name comes with cotenant" in str(caught.value)
    assert "did you mean 'noisy-neighbour'?" in str(caught.value)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("streams.0.model=null", "null must be a name, a list of names, or a mapping with names"),
        ("streams.0.tenant=5", "5 must be a name, a list of names, or a mapping with names"),
        ("streams.0.prompt.tokens=true", "true must be a number, or a mapping with distribution"),
        ("streams.0.arrivals=true", "true must be a mapping of fields"),
        ("seed=" + "9" * 5000, "the value is a whole number of more than 64 bits; quote text"),
    ],
    ids=lambda text: text[:20],
)
def test_what_may_stand_there_is_said(tmp_path: Path, override: str, problem: str) -> None:
    assert problems(tmp_path, GOOD, override) == [f"--set {override.partition('=')[0]}: {problem}"]


def test_a_folder_is_no_scenario(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario_path(str(tmp_path))

    assert str(caught.value) == f"{tmp_path}: is a folder; name a file"
