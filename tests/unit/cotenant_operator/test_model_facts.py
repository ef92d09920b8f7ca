"""One model whose files nobody foresaw freezes no other: neither in a plan nor in the answers of the hub."""

from pathlib import Path

import pytest
from tests.builders.operator import model_folder

from cotenant_cache.errors import CacheError
from cotenant_operator import model_facts
from cotenant_operator.hub_facts import HubFacts
from cotenant_operator.manifests import load
from cotenant_operator.world import read_world

MODEL = """\
apiVersion: cotenant.dev/v1alpha1
kind: ModelDeployment
metadata: {{name: {name}}}
spec: {{model: "file://{folder}"}}
"""


@pytest.fixture
def surprised(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The reader of files fails in a way of its own for every source with `odd` in it."""
    read, asked = model_facts.read_facts, []

    def surprise(source: str, cache_dir: str, *access: object) -> object:
        asked.append(source)
        if "odd" in source:
            raise TypeError("secret content of a file")
        return read(source, cache_dir, *access)

    monkeypatch.setattr(model_facts, "read_facts", surprise)
    return asked


def test_a_folder_that_surprises_its_reader_is_corrupt_and_the_others_are_planned(
    tmp_path: Path, surprised: list[str]
) -> None:
    names = ("fine", "odd")
    folders = {name: model_folder(tmp_path / name) for name in names}
    file = tmp_path / "models.yaml"
    file.write_text("---\n".join(MODEL.format(name=name, folder=folders[name]) for name in names))
    assert len(load([file]).models) == 2

    facts = read_world([file], tmp_path).facts
    odd = facts[f"file://{folders['odd']}"]
    assert isinstance(odd, CacheError)
    assert (odd.reason, "TypeError" in odd.message, "secret" in odd.message) == ("CorruptWeights", True, False)
    assert not isinstance(facts[f"file://{folders['fine']}"], CacheError)


def test_a_hub_source_that_surprises_its_reader_is_answered_too(tmp_path: Path, surprised: list[str]) -> None:
    hub = HubFacts(str(tmp_path))
    assert hub.ask("hf://org/odd") is None
    hub.wait(10)

    said = hub.ask("hf://org/odd")
    assert isinstance(said, CacheError)
    assert "TypeError" in said.message
    assert surprised == ["hf://org/odd"]
