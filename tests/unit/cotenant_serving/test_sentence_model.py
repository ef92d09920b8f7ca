"""The sentence model of the demo, as it is shipped: small, safe to load, and near to what means the same.

The pairs and the ranking are those of `scripts/sentence_check.py`, so its model card is checked here too.
"""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
MODEL_DIR = ROOT / "serving" / "cotenant_serving" / "demo_models" / "sentences"


@pytest.fixture(scope="module")
def check() -> Any:
    """`scripts/sentence_check.py` as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        return _script("sentence_check")


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pairs(check: Any) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = check.read_pairs(check.PAIRS_FILE)
    return found


@pytest.fixture(scope="module")
def near(check: Any) -> Any:
    return check.embedder(MODEL_DIR)


def read(name: str) -> Any:
    return json.loads((MODEL_DIR / name).read_text(encoding="utf-8"))


def test_the_whole_folder_is_at_most_five_megabytes() -> None:
    assert sum(file.stat().st_size for file in MODEL_DIR.rglob("*") if file.is_file()) <= 5_000_000


def test_the_folder_holds_safetensors_and_text_and_nothing_that_runs_when_loaded() -> None:
    suffixes = {file.suffix for file in MODEL_DIR.rglob("*") if file.is_file()}
    assert suffixes == {".safetensors", ".json", ".md"}
    assert "auto_map" not in read("config.json")


def test_it_is_laid_out_as_sentence_transformers_does() -> None:
    kinds = [(module["path"], module["type"].rpartition(".")[2]) for module in read("modules.json")]
    assert kinds == [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    assert read("1_Pooling/config.json")["pooling_mode_mean_tokens"] is True
    config = read("config.json")
    assert read("sentence_bert_config.json")["max_seq_length"] == config["max_position_embeddings"]
    assert read("1_Pooling/config.json")["word_embedding_dimension"] == config["hidden_size"]
    assert config["matryoshka_dimensions"] == [32, 64, 128]


def test_the_model_card_has_a_licence_and_says_what_the_model_is_not() -> None:
    card = (MODEL_DIR / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    assert "license: apache-2.0" in card
    assert "What it is not" in card


@pytest.mark.parametrize("name", ["held_out", "second", "fresh"])
def test_the_right_sentence_comes_first_for_as_many_pairs_as_the_card_says(
    check: Any, pairs: dict[str, list[tuple[str, str]]], near: Any, name: str
) -> None:
    right = len(pairs[name]) - len(check.wrong_ones(pairs[name], near))
    assert claimed(name, 1) == f"{right} of {len(pairs[name])}"
    assert name == "second" or right >= 0.9 * len(pairs[name])


@pytest.mark.parametrize("name", ["held_out", "second", "fresh"])
def test_counting_words_does_not_solve_the_pairs(
    check: Any, pairs: dict[str, list[tuple[str, str]]], name: str
) -> None:
    right = len(pairs[name]) - len(check.wrong_ones(pairs[name], check.counted_words))
    assert claimed(name, 3) == f"{right} of {len(pairs[name])}"
    assert right <= 0.6 * len(pairs[name])


def claimed(name: str, column: int) -> str:
    """A cell of the card's table of results."""
    card = (MODEL_DIR / "README.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| `{name}`.*$", card, re.MULTILINE)
    assert row is not None
    return row[0].split("|")[column + 1].strip()


def test_no_pair_that_is_held_out_stands_in_what_it_was_trained_on(pairs: dict[str, list[tuple[str, str]]]) -> None:
    trained = (ROOT / "scripts" / "sentence_training_text.yaml").read_text(encoding="utf-8").lower()
    trained += (ROOT / "scripts" / "chat_training_text.yaml").read_text(encoding="utf-8").lower()
    sentences = [sentence for some in pairs.values() for pair in some for sentence in pair]
    assert [sentence for sentence in sentences if sentence.rstrip(".?!").lower() in trained] == []


def test_upper_case_and_spaces_do_not_matter(near: Any) -> None:
    assert float(near(["A cat lies on the sofa."], ["  a CAT lies   on the Sofa."])) == pytest.approx(1.0, abs=1e-4)
