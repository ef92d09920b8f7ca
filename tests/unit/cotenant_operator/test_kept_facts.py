"""What models of a pool are, as it is kept for a leader that comes later."""

import base64
import hashlib
from dataclasses import fields
from typing import Any

import msgspec
import pytest
from tests.builders.operator import facts, pool

from cotenant_cache.errors import HubUnreachableError
from cotenant_cache.facts import ModelFacts, WeightsFile
from cotenant_operator.kept_facts import FACTS_KEY, FORMAT, MOST_BYTES, PackedFacts, pack, unpack
from cotenant_operator.kinds import Object
from cotenant_operator.operator_settings import OperatorSettings
from cotenant_operator.pool_hubs import Hub
from cotenant_operator.render.kept_facts import render_facts
from cotenant_serving.packed_config import packed, unpacked

HUB = Hub("https://hub.example", "hub/token")
SMALL = "hf://org/small"
SHARDS = tuple(WeightsFile(f"model-{number:05}-of-00004.safetensors", 4 * 2**30 + number) for number in range(4))
FACTS = facts(files=SHARDS, modules=("Transformer", "Pooling"), family="llama", text_only=False)


def config_map(content: bytes) -> Object:
    return render_facts(pool(), OperatorSettings(), content, uid="uid-pool")


def written(value: Any) -> Object:
    return config_map(packed(msgspec.json.encode(value)))


def test_what_is_kept_is_read_as_it_was() -> None:
    kept = {SMALL: FACTS, "hf://org/other@main": facts(archive="model.pt2")}

    assert unpack(config_map(pack(HUB, kept)), HUB) == kept
    assert pack(HUB, kept) == pack(HUB, dict(reversed(kept.items()))), "the same bytes: nothing is written anew"


@pytest.mark.parametrize("other", [Hub(), Hub("https://hub.example"), Hub("https://other.example", "hub/token")])
def test_what_a_hub_has_shown_for_a_secret_is_shown_to_no_other(other: Hub) -> None:
    assert unpack(config_map(pack(HUB, {SMALL: FACTS})), other) == {}


@pytest.mark.parametrize(
    "item",
    [
        config_map(b""),
        config_map(b"\x1f\x8b cut off"),
        {**config_map(b""), "binaryData": {FACTS_KEY: "%"}},
        {**config_map(b""), "binaryData": {}},
        {**config_map(b""), "binaryData": None},
        written({"format": FORMAT + 1, "hub": HUB, "facts": {}}),
        written({"format": FORMAT, "hub": HUB, "facts": {SMALL: {"source": SMALL}}}),
        written([]),
    ],
)
def test_what_cannot_be_read_is_said_to_be_so(item: Object) -> None:
    with pytest.raises(ValueError):
        unpack(item, HUB)


def test_facts_with_other_fields_are_another_format() -> None:
    """Raise FORMAT when this fails: what an older operator kept lacks the new field, which would get its default."""
    assert (FORMAT, [field.name for field in fields(ModelFacts)], [field.name for field in fields(WeightsFile)]) == (
        1,
        [
            *("source", "fingerprint", "architecture", "weights_bytes", "num_parameters", "layers", "hidden_size"),
            *("intermediate_size", "attention_heads", "kv_heads", "head_dim", "vocab_size", "dtype", "dtype_bytes"),
            *("max_position_embeddings", "max_sequence_tokens", "num_labels", "modules", "family", "text_only"),
            *("archive", "files"),
        ],
        ["name", "size_bytes"],
    )


def test_models_that_find_no_room_are_left_out_and_the_others_are_kept() -> None:
    def of(number: int) -> ModelFacts:
        commits = (hashlib.sha256(f"{number}/{part}".encode()).hexdigest() for part in range(200))
        return facts(files=tuple(WeightsFile(f"{commit}.safetensors", number) for commit in commits))

    many = {f"hf://org/m{number:03}": of(number) for number in range(120)}
    content = pack(HUB, many)
    kept = unpack(config_map(content), HUB)

    assert MOST_BYTES / 2 < len(content) <= MOST_BYTES
    assert len(base64.b64encode(content)) < 2**20 * 3 / 4
    assert list(kept) == list(many)[: len(kept)]
    assert 0 < len(kept) < len(many)


def test_a_model_that_alone_finds_no_room_leaves_nothing_to_keep() -> None:
    commits = (hashlib.sha256(str(number).encode()).hexdigest() for number in range(30_000))
    huge = facts(files=tuple(WeightsFile(commit, 1) for commit in commits))

    assert pack(HUB, {SMALL: huge}) == b""


def test_only_what_a_hub_has_said_of_models_is_kept_and_packed_once() -> None:
    packing, known = PackedFacts(), {SMALL: FACTS, "hf://org/down": HubUnreachableError("x"), "file:///m": facts()}
    (first,) = packing.of([pool()], {"default": known}).values()
    (again,) = packing.of([pool()], {"default": dict(known)}).values()

    assert b"hf://org/small" in unpacked(first)
    assert not any(word in unpacked(first) for word in (b"hf://org/down", b"file:///m"))
    assert again is first
    assert packing.of([pool()], {"default": {}}) == {"default": b""}
    assert packing.of([], {}) == {}


def test_it_goes_with_its_pool_and_stands_in_the_operators_namespace() -> None:
    item = config_map(pack(HUB, {SMALL: FACTS}))

    assert item["metadata"]["name"] == "cotenant-facts-default"
    assert item["metadata"]["namespace"] == "cotenant-system"
    assert [owner["uid"] for owner in item["metadata"]["ownerReferences"]] == ["uid-pool"]
