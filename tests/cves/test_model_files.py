"""A model is data: no file of it runs, none is written elsewhere, and none takes the time or memory of who looks."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.builders.archives import parts, write_archive
from tests.builders.engine import generate_args, make_tiny_llama
from tests.builders.operator import model_folder
from tests.builders.pickles import malicious_pickle, malicious_torch_file

from cotenant_cache.client import open_model
from cotenant_cache.errors import UnsafeFilesError
from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import LoadError
from cotenant_serving.engine.loader import load
from cotenant_serving.engine.model_source import ModelSource
from cotenant_serving.engine.tensor_archive import Archive

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

CODE = "import os\nos.mkdir({marker!r})\n"
PICKLES = (
    *("pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "weights.pkl", "model.pickle", "training_args.bin"),
    *("optimizer.pt", "adapter_model.bin", "pytorch_model-00001-of-00001.bin", "tf_model.h5", "flax_model.msgpack"),
    *("tokenizer.pkl", "scheduler.pt", "consolidated.00.pth", "vocab.bin", "rng_state.pth", "spiece.model.pkl"),
)


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """The folder that the malicious files make when they run; it is not there after the test."""
    yield tmp_path / "executed"
    assert not (tmp_path / "executed").exists()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


def copied(folder: Path, to: Path) -> Path:
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def change(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def quiet(what: str, part: float, **more: object) -> None:
    del what, part, more


def test_the_malicious_pickles_of_these_tests_do_run_when_they_are_read(tmp_path: Path) -> None:
    """So that a marker that is missing says something."""
    import pickle

    import torch

    pickle.loads(malicious_pickle(tmp_path / "one"))
    (tmp_path / "model.pt").write_bytes(malicious_torch_file(tmp_path / "two"))
    torch.load(tmp_path / "model.pt", weights_only=False)
    assert (tmp_path / "one").is_dir()
    assert (tmp_path / "two").is_dir()


@pytest.mark.parametrize("name", PICKLES[:6])
def test_a_model_of_pickles_is_refused_unread(name: str, tmp_path: Path, marker: Path) -> None:
    """CVE-2025-32434 (torch.load runs code with weights_only=True too), SGLang's CVE-2026-14890 and CVE-2026-93034
    (pickles are read though that was turned off): there is no way in which they are read."""
    for content in (malicious_pickle(marker), malicious_torch_file(marker)):
        folder = model_folder(tmp_path / "m")
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(content)
        with pytest.raises(UnsafeFilesError, match=name):
            open_model(f"file://{folder}", "")


def test_an_engine_loads_safetensors_and_opens_no_pickle_beside_them(
    llama: Path, tmp_path: Path, marker: Path
) -> None:
    """CVE-2025-32434 and SGLang's CVE-2026-15969, CVE-2026-86793 and CVE-2026-93088: the real loader, in a folder
    that is full of pickles. Breaks when anything beside *.safetensors, *.json and the tokenizer is read."""
    folder = copied(llama, tmp_path / "m")
    for name in PICKLES:
        (folder / name).write_bytes(
            malicious_torch_file(marker) if name.endswith(("bin", "pt", "pth")) else malicious_pickle(marker)
        )
    loaded = load(args := generate_args(folder), ModelSource(args), quiet)
    assert type(loaded.model).__name__ == "LlamaForCausalLM"


@pytest.mark.parametrize(
    "name", ["data/weights/model.pt", "data/constants/custom_obj_0", "data/aotinductor/model/x.so"]
)
def test_an_archive_of_torch_with_pickles_is_refused(name: str, tmp_path: Path, marker: Path) -> None:
    """CVE-2025-32434, for `.pt2`: torch.export.load unpickles constants and loads compiled code."""
    file = write_archive(tmp_path / "m" / "net.pt2", {**parts(), name: malicious_torch_file(marker)})
    with pytest.raises(LoadError) as refused:
        Archive(file, 2**30)
    assert refused.value.reason is Reason.UNSAFE_FILES


def test_the_pickle_that_torch_always_puts_into_an_archive_is_left_unread(tmp_path: Path, marker: Path) -> None:
    """CVE-2025-32434: torch.export.load unpickles the sample inputs, so it is not used."""
    evil = {"data/sample_inputs/model.pt": malicious_torch_file(marker)}
    with Archive(write_archive(tmp_path / "m" / "net.pt2", {**parts(), **evil}), 2**30) as opened:
        assert opened.json("models/model.json")


CONFIGS: list[tuple[str, str, dict[str, Any]]] = [
    ("CVE-2026-80047-auto_map", "config.json", {"auto_map": {"AutoModel": "modeling_x.X"}}),
    ("CVE-2026-80047-tokenizer", "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["x.X", None]}}),
    ("CVE-2026-80047-in-a-part", "config.json", {"text_config": {"auto_map": {"AutoConfig": "modeling_x.X"}}}),
    ("CVE-2026-5241-in-a-part", "config.json", {"keypoint_detector_config": {"trust_remote_code": True}}),
    ("CVE-2026-5241-deep", "config.json", {"a": [{"b": {"c": [{"auto_map": {"AutoModel": "modeling_x.X"}}]}}]}),
    ("CVE-2026-27893-at-the-top", "config.json", {"trust_remote_code": True}),
    ("CVE-2026-27893-pipelines", "config.json", {"custom_pipelines": {"x": {"impl": "modeling_x.X"}}}),
]


def written_code() -> set[Path]:
    """What transformers has copied of models' own code so far."""
    from transformers.dynamic_module_utils import HF_MODULES_CACHE

    return set(Path(HF_MODULES_CACHE).rglob("*.py"))


@pytest.mark.parametrize(("file", "fields"), [case[1:] for case in CONFIGS], ids=[case[0] for case in CONFIGS])
def test_a_model_with_code_of_its_own_is_refused_before_a_line_of_it_is_copied(
    file: str, fields: dict[str, Any], llama: Path, tmp_path: Path, marker: Path
) -> None:
    """CVE-2026-80047 (transformers 4.57 to 5.16 writes the code to disk before it asks), CVE-2026-5241 (a part of the
    configuration overrides trust_remote_code=False), CVE-2026-27893 (vLLM 0.10.1 to 0.17 passed True for parts)."""
    folder = copied(llama, tmp_path / "m")
    (folder / "modeling_x.py").write_text(CODE.format(marker=str(marker)))
    change(folder / file, **fields)
    before = written_code()
    with pytest.raises(LoadError) as refused:
        load(args := generate_args(folder), ModelSource(args), quiet)
    assert refused.value.reason is Reason.UNSAFE_FILES
    assert written_code() == before


def test_code_that_nothing_names_is_not_run_either(llama: Path, tmp_path: Path, marker: Path) -> None:
    """CVE-2026-80047: transformers looks for a `custom_generate` folder by itself, and Python imports what lies in
    the working directory. trust_remote_code=False stands in every call of the loader."""
    folder = copied(llama, tmp_path / "m")
    for name in (
        "modeling_llama.py",
        "configuration_llama.py",
        "custom_generate/generate.py",
        "__init__.py",
        "torch.py",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(CODE.format(marker=str(marker)))
    before = written_code()
    load(args := generate_args(folder), ModelSource(args), quiet)
    assert written_code() == before


@pytest.mark.parametrize(
    "architecture", ["LightGlueForKeypointMatching", "os.system", "__import__", "Auto Model", ""]
)
def test_an_architecture_is_a_name_among_those_of_transformers(
    architecture: str, llama: Path, tmp_path: Path
) -> None:
    """CVE-2026-5241 (LightGlue): what the configuration names must be a class for texts that belongs to it."""
    folder = copied(llama, tmp_path / "m")
    change(folder / "config.json", architectures=[architecture])
    with pytest.raises(LoadError) as refused:
        load(args := generate_args(folder), ModelSource(args), quiet)
    assert refused.value.reason is Reason.UNSUPPORTED_ARCHITECTURE
