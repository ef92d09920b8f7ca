"""torch.export archives: sized and judged by their table of contents."""

import contextlib
import random
from pathlib import Path

import pytest
from tests.builders.folders import archive, folder_of
from tests.builders.operator import model_folder

from cotenant_cache.client import open_checked, read_facts
from cotenant_cache.errors import CacheError, CorruptWeightsError, UnsafeFilesError, UnsupportedArchitectureError
from cotenant_cache.facts import ModelFacts


def facts_of(folder: Path) -> ModelFacts:
    return read_facts(f"file://{folder}", "")


def refusal(folder: Path, expected: type[CacheError]) -> str:
    with pytest.raises(expected) as caught:
        open_checked(f"file://{folder}", "")
    return caught.value.message


def test_a_folder_with_one_archive_needs_no_config(tmp_path: Path) -> None:
    found = facts_of(folder_of(tmp_path, {"net.pt2": archive()}))

    assert (found.archive, found.architecture) == ("net.pt2", "")
    assert [(file.name, file.size_bytes) for file in found.files] == [("net.pt2", len(archive()))]
    assert open_checked(f"file://{tmp_path}", "").folder == tmp_path


def test_it_is_as_large_as_it_is_unpacked(tmp_path: Path) -> None:
    small = facts_of(folder_of(tmp_path / "a", {"net.pt2": archive()})).weights_bytes
    large = facts_of(
        folder_of(tmp_path / "b", {"net.pt2": archive(data__weights__weight_1=bytes(5000))})
    ).weights_bytes

    assert small > 1024
    assert large - small == 5000


def test_the_fingerprint_changes_with_the_archive(tmp_path: Path) -> None:
    before = facts_of(folder_of(tmp_path, {"net.pt2": archive()})).fingerprint
    folder_of(tmp_path, {"net.pt2": archive(extra__note=b"x")})

    assert facts_of(tmp_path).fingerprint != before


def test_safetensors_weights_count_before_an_archive(tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    folder_of(folder, {"net.pt2": archive()})

    assert (facts_of(folder).archive, facts_of(folder).architecture) == ("", "LlamaForCausalLM")


def test_a_config_beside_an_archive_does_not_matter(tmp_path: Path) -> None:
    assert facts_of(folder_of(tmp_path, {"net.pt2": archive(), "config.json": b"{}"})).archive == "net.pt2"


def test_several_archives_are_refused_by_name(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"a.pt2": archive(), "b.pt2": archive()})

    assert "has 2 archives (a.pt2, b.pt2)" in refusal(folder, UnsupportedArchitectureError)


@pytest.mark.parametrize("content", [b"", b"no zip", archive()[:-30], archive()[:500]])
def test_what_is_no_whole_zip_is_damage(tmp_path: Path, content: bytes) -> None:
    assert "is no whole zip file" in refusal(folder_of(tmp_path, {"net.pt2": content}), CorruptWeightsError)


@pytest.mark.parametrize("gone", ["models/model.json", "archive_format"])
def test_another_zip_file_is_no_archive(tmp_path: Path, gone: str) -> None:
    folder = folder_of(tmp_path, {"net.pt2": archive(without=gone)})

    assert "no torch.export archive" in refusal(folder, UnsupportedArchitectureError)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (archive(data__constants__opaque_obj_0=b"x"), "opaque_obj_0' is a pickle"),
        (archive(data__constants__custom_obj_0=b"x"), "custom_obj_0' is a pickle"),
        (archive(**{"data__weights__model.pt": b"x"}), "'data/weights/model.pt' is a pickle"),
        (archive(pickled=True), "tensor 'weight' is stored as a pickle"),
        (archive(**{"data__aotinductor__model__model.so": b"x"}), "has compiled code"),
    ],
)
def test_what_would_run_code_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refusal(folder_of(tmp_path, {"net.pt2": content}), UnsafeFilesError)


def test_a_name_that_is_no_text_is_damage(tmp_path: Path) -> None:
    content = archive(extra__naïve=b"x").replace("naïve".encode(), b"na\xff\xffve")

    assert "is no whole zip file" in refusal(folder_of(tmp_path, {"net.pt2": content}), CorruptWeightsError)


def test_names_in_an_archive_steer_no_terminal(tmp_path: Path) -> None:
    content = archive(**{"data__aotinductor__\x1b]0;mine\x07": b"x"})

    assert r"\x1b]0;mine\x07" in refusal(folder_of(tmp_path, {"net.pt2": content}), UnsafeFilesError)


def test_damage_anywhere_in_an_archive_is_a_cache_error(tmp_path: Path) -> None:
    chance, whole = random.Random(5), archive()
    for _ in range(300):
        content = bytearray(whole)
        for at in chance.sample(range(len(content)), 4):
            content[at] = chance.randrange(256)
        folder = folder_of(tmp_path, {"net.pt2": bytes(content)})
        with contextlib.suppress(CacheError):
            facts_of(folder)


def test_a_description_of_tensors_that_is_none_is_damage(tmp_path: Path) -> None:
    content = archive(**{"data__weights__model_weights_config.json": b"[]"})

    assert "does not describe tensors" in refusal(folder_of(tmp_path, {"net.pt2": content}), CorruptWeightsError)
