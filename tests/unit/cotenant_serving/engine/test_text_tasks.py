"""What embed, rerank and classify decide without a model: sizes, activations, what a batch may hold."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import LoadError
from cotenant_serving.engine.classify import class_activation, score_activation
from cotenant_serving.engine.embed import Sizes, shortened, sizes_of
from cotenant_serving.engine.loader import Loaded
from cotenant_serving.engine.text_model import padded_tokens
from cotenant_serving.request_fields import RequestError


def config(**fields: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"num_labels": 1, "problem_type": None} | fields)


def loaded(**fields: Any) -> Loaded:
    return Loaded(SimpleNamespace(config=config(**fields)), None, 4, Path("/m"))


@pytest.mark.parametrize(
    ("fields", "sizes"),
    [
        ({}, Sizes(8)),
        ({"is_matryoshka": False}, Sizes(8)),
        ({"is_matryoshka": True}, Sizes(8, frozenset())),
        ({"matryoshka_dimensions": [8, 4, 2, 99]}, Sizes(8, frozenset({2, 4}))),
    ],
)
def test_shorter_vectors_are_what_config_json_allows(fields: dict[str, Any], sizes: Sizes) -> None:
    assert sizes_of(config(**fields), 8) == sizes


@pytest.mark.parametrize(
    ("sizes", "wanted", "given"),
    [(Sizes(8), None, 8), (Sizes(8), 8, 8), (Sizes(8, frozenset()), 3, 3), (Sizes(8, frozenset({4})), 4, 4)],
)
def test_a_size_that_the_model_has_is_given(sizes: Sizes, wanted: int | None, given: int) -> None:
    assert sizes.check(wanted, "dimensions") == given


@pytest.mark.parametrize(
    ("sizes", "wanted", "words"),
    [
        (Sizes(8), 4, "only 8"),
        (Sizes(8, frozenset()), 9, "1 to 8"),
        (Sizes(8, frozenset({2, 4})), 3, "2, 4, 8"),
    ],
)
def test_another_size_is_a_400_that_names_the_field(sizes: Sizes, wanted: int, words: str) -> None:
    with pytest.raises(RequestError, match=words) as refused:
        sizes.check(wanted, "dimensions")
    assert (refused.value.status, refused.value.param) == (400, "dimensions")


def test_shortened_vectors_are_of_unit_length_only_when_whole_ones_are() -> None:
    vectors = [np.array([3.0, 4.0, 12.0], dtype=np.float32), np.zeros(3, dtype=np.float32)]
    assert [vector.tolist() for vector in shortened(vectors, 2, False)] == [[3, 4], [0, 0]]
    assert [vector.tolist() for vector in shortened(vectors, 2, True)] == [
        pytest.approx([0.6, 0.8]),
        [0, 0],
    ]


@pytest.mark.parametrize(
    ("fields", "activation"),
    [
        ({"num_labels": 3}, "softmax"),
        ({"num_labels": 1}, "sigmoid"),
        ({"num_labels": 3, "problem_type": "single_label_classification"}, "softmax"),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, "sigmoid"),
        ({"num_labels": 1, "problem_type": "regression"}, "identity"),
    ],
)
def test_classes_are_activated_as_the_problem_asks(fields: dict[str, Any], activation: str) -> None:
    assert class_activation(config(**fields)) == activation


@pytest.mark.parametrize(
    ("fields", "activation"),
    [
        ({}, "sigmoid"),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "identity"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh", "version": "5"}}, "tanh"),
        ({"sentence_transformers": {"version": "5"}}, "sigmoid"),
    ],
)
def test_scores_are_activated_as_the_files_ask(fields: dict[str, Any], activation: str) -> None:
    assert score_activation(loaded(**fields)) == activation


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_labels": 3}, "3 labels"),
        ({"sbert_ce_default_activation_function": "os.system"}, "sbert_ce_default_activation_function"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Softmax"}}, "activation_fn"),
    ],
)
def test_a_reranker_with_other_outputs_or_activations_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(LoadError, match=words) as refused:
        score_activation(loaded(**fields))
    assert refused.value.reason is Reason.UNSUPPORTED_ARCHITECTURE


def test_a_pass_always_has_room_for_the_longest_text() -> None:
    assert padded_tokens("cpu", 512) == 2048
    assert padded_tokens("cpu", 8192) == 8192
