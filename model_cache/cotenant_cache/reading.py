"""A model's files, judged in the same order on disk and on the hub: small ones first, headers last, no tensor at all.

`ModelFiles` is what either of them must give. Nothing here knows where files are.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cotenant_cache.config import refuse_own_code
from cotenant_cache.errors import CorruptWeightsError, FileMissingError
from cotenant_cache.facts import CLASSIFIER, ModelFacts, WeightsFile, archive_facts, facts_from
from cotenant_cache.headers import WeightsHeader
from cotenant_cache.layout import SINGLE_FILE, choose_archive, choose_dense, choose_weights, shards_of
from cotenant_cache.modules import (
    LENGTH_FILES,
    MODULES_FILE,
    Module,
    parse_modules,
    pooling_modes,
    refuse_other_modules,
)

MAX_JSON_BYTES = 64 * 2**20
"""Of one file; more is no description of a model."""
_KEPT_SUFFIXES = (".json", ".jinja", ".model", ".tiktoken")
_KEPT_NAMES = frozenset({"merges.txt", "vocab.txt"})
_TEMPLATES_FOLDER = "additional_chat_templates/"


class ModelFiles(Protocol):
    """The files of one model. What cannot be read raises a CacheError."""

    @property
    def source(self) -> str:
        """As it stands in messages."""

    @property
    def names(self) -> Collection[str]:
        """Of the model's own files, and of those in folders directly below as `folder/name`."""

    def json(self, name: str) -> Any:
        """Its content. The file may not be there although it was listed."""

    def headers(self, names: Sequence[str]) -> list[tuple[WeightsHeader, int]]:
        """Checked header and bytes of each safetensors file."""

    def archive(self, name: str) -> tuple[int, int]:
        """Bytes of a checked torch.export archive, unpacked and as it is."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a model is made of, before a header is read."""

    config: Mapping[str, Any]
    """Empty for an archive."""
    archive: str
    modules: tuple[Module, ...]
    weights: tuple[str, ...]
    """Names of all weights files, linear layers after pooling included; for an archive, of it alone."""


def read_facts(files: ModelFiles, *, source: str, fingerprint: str) -> ModelFacts:
    """`source` is what the facts name. Raises CacheError."""
    found = read_contents(files)
    if found.archive:
        unpacked_bytes, size_bytes = files.archive(found.archive)
        file = WeightsFile(found.archive, size_bytes)
        return archive_facts(source=source, fingerprint=fingerprint, file=file, unpacked_bytes=unpacked_bytes)
    if "tokenizer_config.json" in files.names:
        tokenizer = _object(files, "tokenizer_config.json")
        refuse_own_code(tokenizer, source=files.source, file="tokenizer_config.json")
    headers = files.headers(found.weights)
    return facts_from(
        source=source,
        fingerprint=fingerprint,
        config=found.config,
        headers=[header for header, _ in headers],
        files=[WeightsFile(name, size) for name, (_, size) in zip(found.weights, headers, strict=True)],
        modules=tuple(module.kind for module in found.modules),
        max_sequence_tokens=_longest(files),
    )


def read_contents(files: ModelFiles) -> Contents:
    """Refuses code of the model's own, unknown modules and missing files before a byte of weights is touched.

    Raises CacheError.
    """
    archive = choose_archive(files.names, source=files.source)
    if archive:
        return Contents({}, archive, (), (archive,))
    if "config.json" not in files.names:
        raise FileMissingError(
            f"{files.source}: has no config.json; give the folder that save_pretrained wrote, or one with one "
            ".pt2 archive"
        )
    config = _object(files, "config.json")
    refuse_own_code(config, source=files.source, file="config.json")
    modules = _modules(files, config)
    dense = [
        choose_dense(files.names, module.path, source=files.source) for module in modules if module.kind == "Dense"
    ]
    return Contents(config, "", modules, (*_weights(files), *dense))


def small_files(names: Collection[str], contents: Contents) -> list[str]:
    """Everything an engine may read beside weights, in order: no Python, no pickle, nothing of other folders."""
    folders = {module.path for module in contents.modules if module.path}
    own = [
        name
        for name in names
        if name in _KEPT_NAMES
        or (name.endswith(_KEPT_SUFFIXES) and ("/" not in name or name.startswith(_TEMPLATES_FOLDER)))
    ]
    return sorted([*own, *(name for name in names if name in {f"{folder}/config.json" for folder in folders})])


def _modules(files: ModelFiles, config: Mapping[str, Any]) -> tuple[Module, ...]:
    """Of modules.json, when the model makes vectors of texts; a classifier may have one that says nothing of them."""
    if MODULES_FILE not in files.names:
        return ()
    modules = parse_modules(files.json(MODULES_FILE), source=files.source)
    architectures = config.get("architectures")
    classifier = isinstance(architectures, list) and str(architectures[:1]).endswith(f"{CLASSIFIER}']")
    if classifier and "Pooling" not in [module.kind for module in modules]:
        return ()
    refuse_other_modules(modules, source=files.source)
    for module in modules:
        if module.kind in ("Pooling", "Dense"):
            name = f"{module.path}/config.json"
            described = _object(files, name)
            if module.kind == "Pooling":
                pooling_modes(described, source=files.source, file=name)
    return modules


def _weights(files: ModelFiles) -> tuple[str, ...]:
    first = choose_weights([name for name in files.names if "/" not in name], source=files.source)
    if first == SINGLE_FILE:
        return (first,)
    shards = shards_of(_object(files, first), source=files.source)
    missing = [name for name in shards if name not in files.names]
    if missing:
        raise FileMissingError(
            f"{files.source}: {first} lists {len(shards)} files, {len(missing)} of them are not there, "
            f"first {missing[0]}; copy or download them"
        )
    return shards


def _longest(files: ModelFiles) -> int:
    name = next((name for name in LENGTH_FILES if name in files.names), None)
    if name is None:
        return 0
    length = _object(files, name).get("max_seq_length")
    return length if isinstance(length, int) and not isinstance(length, bool) and length > 0 else 0


def _object(files: ModelFiles, name: str) -> Mapping[str, Any]:
    value = files.json(name)
    if not isinstance(value, dict):
        raise CorruptWeightsError(f"{files.source}: {name} is not a JSON object; download it again")
    return value
