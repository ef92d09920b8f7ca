"""Headers of safetensors files → where each tensor lies."""

import json
import struct

import pytest
from tests.builders.operator import safetensors

from cotenant_cache.errors import CorruptWeightsError
from cotenant_cache.headers import PREFIX_BYTES, TensorSpan, tensor_spans
from cotenant_cache.weight_files import Block, blocks_of, share_out

MIB = 2**20


def spans(whole: bytes, *, file_bytes: int | None = None) -> tuple[TensorSpan, ...]:
    length = struct.unpack("<Q", whole[:PREFIX_BYTES])[0]
    header = whole[PREFIX_BYTES : PREFIX_BYTES + length]
    return tensor_spans(header, file="m.safetensors", file_bytes=len(whole) if file_bytes is None else file_bytes)


def test_tensors_lie_back_to_back_up_to_the_end_of_the_file() -> None:
    whole = safetensors({"b": ("F32", [2, 3], 24), "none": ("BF16", [0, 4], 0), "a": ("U8", [5], 5)})
    data = len(whole) - 29
    assert spans(whole) == (
        TensorSpan("b", "F32", (2, 3), data, data + 24),
        TensorSpan("none", "BF16", (0, 4), data + 24, data + 24),
        TensorSpan("a", "U8", (5,), data + 24, data + 29),
    )


def test_a_scalar_has_an_empty_shape() -> None:
    (span,) = spans(safetensors({"scale": ("F64", [], 8)}))
    assert (span.shape, span.end - span.begin) == ((), 8)


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_file_of_another_length_is_refused(difference: int) -> None:
    whole = safetensors()
    with pytest.raises(CorruptWeightsError, match=r"m\.safetensors: has \d+ bytes, its header says \d+"):
        spans(whole, file_bytes=len(whole) + difference)


def test_a_gap_between_tensors_is_refused() -> None:
    header = json.dumps({"a": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]}}).encode()
    with pytest.raises(CorruptWeightsError, match="begins at 1, not at 0"):
        tensor_spans(header, file="m", file_bytes=PREFIX_BYTES + len(header) + 3)


def test_blocks_cover_a_file_once_and_in_order() -> None:
    assert list(blocks_of(2, 20 * MIB)) == [
        Block(2, 0, 8 * MIB),
        Block(2, 8 * MIB, 16 * MIB),
        Block(2, 16 * MIB, 20 * MIB),
    ]
    assert list(blocks_of(0, 3, 2)) == [Block(0, 0, 2), Block(0, 2, 3)]
    assert list(blocks_of(0, 0)) == []


def test_blocks_of_a_run_are_done_in_order_and_none_is_begun_after_an_error() -> None:
    done: list[Block] = []

    def take(block: Block) -> None:
        done.append(block)
        if block.begin == 4:
            raise CorruptWeightsError("this one")

    with pytest.raises(CorruptWeightsError, match="this one"):
        share_out([blocks_of(0, 8, 2), blocks_of(1, 8, 2)], [take])
    assert done == [Block(0, 0, 2), Block(0, 2, 4), Block(0, 4, 6)]
