"""What of a repository is ever fetched, by its name; and sources that are none yet."""

import hashlib

import pytest

from cotenant_cache.contract import ModelFile
from cotenant_cache.digests import is_digest, new_hash
from cotenant_cache.errors import NotSupportedError
from cotenant_cache.hub import Listing, refused
from cotenant_cache.kinds import kind_of, refusal
from cotenant_cache.source import parse_source


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model-00001-of-00002.safetensors", "weights"),
        ("net.pt2", "weights"),
        ("config.json", "description"),
        ("chat_template.jinja", "description"),
        ("merges.txt", "description"),
        ("tokenizer.model", "description"),
        ("modeling_x.py", "code"),
        ("MODELING_X.PY", "code"),
        ("pytorch_model.bin", "pickle"),
        ("model.ckpt", "pickle"),
        ("model.gguf", "binary"),
        ("onnx/model.onnx", "binary"),
        ("no_ending", "binary"),
        ("README.md", "text"),
        ("LICENSE", "text"),
    ],
)
def test_names_say_what_a_file_is(name: str, kind: str) -> None:
    assert kind_of(name) == kind
    assert refusal(name).startswith(name if kind in ("code", "pickle", "binary") else "")


def test_what_stays_on_the_hub_is_told_by_name() -> None:
    names = ("config.json", "x.py", "model.gguf", "a.bin", "README.md")
    listing = Listing("c" * 40, {name: ModelFile(name=name, size_bytes=1, digest="") for name in names})

    assert [said.partition(" ")[0] for said in refused(listing)] == ["a.bin", "model.gguf", "x.py"]


def test_a_registry_of_images_is_not_supported_yet_and_says_so() -> None:
    with pytest.raises(NotSupportedError, match="not supported yet; use hf://"):
        parse_source("oci://registry.example/model:v1")


def test_both_digests_of_a_hub_are_those_of_git_and_sha256() -> None:
    # `printf hello | git hash-object --stdin`
    git, sha256 = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0", hashlib.sha256(b"hello").hexdigest()
    for digest in (git, sha256):
        hashed = new_hash(digest, 5)
        hashed.update(b"hel")
        hashed.update(b"lo")
        assert hashed.hexdigest() == digest
        assert is_digest(digest)
    assert not any(is_digest(text) for text in ("", "../x", "g" * 40, "A" * 64, "a" * 41))
