"""What of a torch.export archive is refused before torch sees it: what could run code, and what is unknown."""

import copy
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.builders.archives import FIELDS, meta, parts, program, write_archive

from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import LoadError
from cotenant_serving.engine.tensor_archive import Archive
from cotenant_serving.engine.tensor_safety import check_expression, safe_payloads, safe_program

MIB = 2**20
CODE = "__import__('os').system('true')"


def plain() -> dict[str, Any]:
    return program({"x": meta("s0", 4)}, {"y": meta("s0", 4)}, ranges={"s0": (1, 8)}, guards=("True",))


def is_operator(name: str, overload: str) -> bool:
    return (name, overload) == ("add", "Tensor") or overload == "default"


def test_a_plain_program_passes_without_what_is_not_needed() -> None:
    found = safe_program(plain(), FIELDS, is_operator)
    assert found["graph_module"]["graph"]["tensor_values"]["x"] == meta("s0", 4)
    assert found["graph_module"]["graph"]["nodes"][0]["target"] == "torch.ops.aten.add.Tensor"
    assert found["graph_module"]["graph"]["nodes"][0]["metadata"] == {}
    assert found["guards_code"] == []
    assert "module_call_graph" not in found["graph_module"]


def test_everything_is_loaded_on_the_cpu_first() -> None:
    given = plain()
    given["graph_module"]["graph"]["tensor_values"]["x"]["device"] = {"type": "cuda", "index": 3}
    found = safe_program(given, FIELDS, is_operator)
    assert found["graph_module"]["graph"]["tensor_values"]["x"]["device"] == {"type": "cpu", "index": None}


def node(of: dict[str, Any]) -> dict[str, Any]:
    first: dict[str, Any] = of["graph_module"]["graph"]["nodes"][0]
    return first


def argument(of: dict[str, Any], value: Any) -> None:
    node(of)["inputs"][0]["arg"] = value


def first_size(of: dict[str, Any], expression: str) -> None:
    of["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0] = {
        "as_expr": {"expr_str": expression, "hint": None}
    }


def deep(of: dict[str, Any]) -> None:
    value: Any = {"as_int": 1}
    for _ in range(200):
        value = {"arg": value}
    argument(of, value)


UNSAFE: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("an expression that is code", lambda p: first_size(p, CODE)),
    ("an operator of Python's os", lambda p: node(p).update(target="torch.os.system")),
    ("an operator below aten that is none", lambda p: node(p).update(target="torch.ops.aten.__class__.mro")),
    ("an operator of another library", lambda p: node(p).update(target="torch.ops.mylib.f.default")),
    ("an operator that reads files", lambda p: node(p).update(target="torch.ops.aten.from_file.default")),
    ("an operator of sparse tensors", lambda p: node(p).update(target="torch.ops.aten._to_sparse.default")),
    ("an operator that changes memory", lambda p: node(p).update(target="torch.ops.aten.resize_.default")),
    ("an operator that may trust lengths", lambda p: node(p).update(target="torch.ops.aten.segment_reduce.default")),
    ("an operator by its extension", lambda p: node(p).update(target="#x:y")),
    ("an operator as an argument", lambda p: argument(p, {"as_operator": "torch.os.system"})),
    ("a name that is code", lambda p: node(p).update(name=f"y): {CODE}\ndef f(a")),
    ("a name of an argument that is code", lambda p: node(p)["inputs"][0].update(name="a=1, b")),
    ("a name that is a word of Python", lambda p: node(p).update(name="import")),
    ("a tensor's name that is code", lambda p: p["graph_module"]["graph"]["tensor_values"].update({"x y": meta(1)})),
    ("a text where a number belongs", lambda p: argument(p, {"as_int": CODE})),
    ("a text in a range", lambda p: p["range_constraints"]["s0"].update(min_val=CODE)),
    ("a field that is not known", lambda p: p["graph_module"]["graph"].update(hooks=[])),
    ("a device that is not known", lambda p: argument(p, {"as_device": {"type": "meta", "index": None}})),
    ("a dialect that is not known", lambda p: p.update(verifiers=["OTHER"])),
    ("too many levels", deep),
    ("no program", lambda p: p.update(graph_module=[])),
]  # fmt: skip


@pytest.mark.parametrize("change", [case[1] for case in UNSAFE], ids=[case[0] for case in UNSAFE])
def test_what_could_run_code_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    given = copy.deepcopy(plain())
    change(given)
    with pytest.raises(LoadError) as refused:
        safe_program(given, FIELDS, is_operator)
    assert refused.value.reason is Reason.UNSAFE_FILES


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s77', positive=True, integer=True)",
        "Add(Symbol('s52', positive=True, integer=True), Integer(-2))",
        "FloorDiv(Symbol('u0', integer=True), Integer(2))",
        "Pow(Symbol('s0', positive=True, integer=True), Integer(2))",
        "GreaterThan(Symbol('u0', integer=True), Integer(0))",
        "Float('1.5', precision=53)",
        "true",
    ],
)
def test_expressions_of_shapes_pass(text: str) -> None:
    check_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        CODE,
        "Symbol('s0').__class__",
        "Symbol('__import__(\"os\")')",
        "Symbol(Symbol('s0'))",
        "Add(*[1, 2])",
        "Integer(x)",
        "(lambda: 1)()",
        "[Symbol('s0')][0]",
        "Pow(Integer(10), Integer(1000000000))",
        "Pow(Pow(Symbol('s0'), Integer(8)), Integer(8))",
        "Pow(Mul(Integer(2), PowByNatural(Symbol('s0'), Integer(8))), Integer(8))",
        "Integer(9999999999999999999999)",
        "Symbol('s0', evil=True)",
        "Float('nan(x)')",
        "Add(" * 100 + "1" + ")" * 100,
        "1 if 1 else 2",
        "",
        "Symbol('s0'" + " " * 3000 + ")",
    ],
)
def test_other_expressions_do_not(text: str) -> None:
    with pytest.raises(LoadError) as refused:
        check_expression(text)
    assert refused.value.reason is Reason.UNSAFE_FILES


def payload(**changes: Any) -> dict[str, Any]:
    return {"config": {"l.weight": {"path_name": "weight_0", "is_param": True, "use_pickle": False,
                                    "tensor_meta": meta(2, 2)} | changes}}  # fmt: skip


def test_raw_tensors_pass() -> None:
    assert list(safe_payloads(payload(), FIELDS)) == ["l.weight"]


@pytest.mark.parametrize(
    "changes",
    [
        {"use_pickle": True},
        {"use_pickle": 0},
        {"path_name": "../../secret"},
        {"path_name": "custom_obj_0"},
        {"tensor_meta": meta(CODE)},
        {"made_up": 1},
    ],
)
def test_pickled_tensors_and_other_paths_do_not(changes: dict[str, Any]) -> None:
    with pytest.raises(LoadError) as refused:
        safe_payloads(payload(**changes), FIELDS)
    assert refused.value.reason is Reason.UNSAFE_FILES


def test_an_archive_gives_its_parts(tmp_path: Path) -> None:
    with Archive(write_archive(tmp_path / "model.pt2", parts() | {"extra/notes.txt": b"x"}), MIB) as archive:
        assert archive.json("models/model.json")["torch_version"] == "2.15.0"
        assert archive.size("archive_format") == 3


ARCHIVES: list[tuple[str, dict[str, bytes], Reason]] = [
    ("pickled weights", {"data/weights/model.pt": b"x"}, Reason.UNSAFE_FILES),
    ("a pickled object", {"data/constants/custom_obj_0": b"x"}, Reason.UNSAFE_FILES),
    ("another pickled object", {"data/constants/opaque_obj_0": b"x"}, Reason.UNSAFE_FILES),
    ("an older archive's pickle", {"serialized_state_dict.pt": b"x"}, Reason.UNSAFE_FILES),
    ("compiled code", {"data/aotinductor/model/m.so": b"x"}, Reason.UNSAFE_FILES),
    ("a second model", {"models/other.json": b"{}"}, Reason.UNSAFE_FILES),
    ("a path out of it", {"extra/../../x": b"x"}, Reason.UNSAFE_FILES),
    ("an unknown part", {"code/run.py": b"x"}, Reason.UNSAFE_FILES),
    ("another format", {"archive_format": b"pt9"}, Reason.UNSUPPORTED_ARCHITECTURE),
    ("another byte order", {"byteorder": b"big"}, Reason.UNSUPPORTED_ARCHITECTURE),
]


@pytest.mark.parametrize(("added", "reason"), [case[1:] for case in ARCHIVES], ids=[case[0] for case in ARCHIVES])
def test_an_archive_with_anything_else_in_it_is_refused(
    added: dict[str, bytes], reason: Reason, tmp_path: Path
) -> None:
    with pytest.raises(LoadError) as refused:
        Archive(write_archive(tmp_path / "model.pt2", parts() | added), MIB)
    assert refused.value.reason is reason
    assert str(tmp_path) in refused.value.message


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    bomb = parts() | {"data/weights/weight_0": bytes(10 * MIB)}
    with pytest.raises(LoadError, match="compressed") as refused:
        Archive(write_archive(tmp_path / "model.pt2", bomb, compress=True), 100 * MIB)
    assert refused.value.reason is Reason.UNSAFE_FILES


def test_an_archive_that_says_its_parts_are_larger_than_it_is_is_refused(tmp_path: Path) -> None:
    file = write_archive(tmp_path / "model.pt2", parts() | {"data/weights/weight_0": bytes(1000)})
    content = file.read_bytes()
    at = content.rindex(b"PK\x01\x02", 0, content.rindex(b"data/weights/weight_0"))
    claimed = (20 * MIB).to_bytes(4, "little")
    file.write_bytes(content[: at + 20] + claimed + claimed + content[at + 28 :])
    with pytest.raises(LoadError, match="more than the file") as refused:
        Archive(file, 100 * MIB)
    assert refused.value.reason is Reason.UNSAFE_FILES


def test_a_part_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    file = write_archive(tmp_path / "model.pt2", parts())
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(file, "a") as archive:
        archive.writestr("archive/models/model.json", b"{}")
    with pytest.raises(LoadError, match="twice"):
        Archive(file, MIB)


def test_a_part_outside_its_folder_is_refused(tmp_path: Path) -> None:
    file = write_archive(tmp_path / "model.pt2", parts())
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("elsewhere/models/model.json", b"{}")
    with pytest.raises(LoadError, match="outside"):
        Archive(file, MIB)


def test_an_archive_that_exceeds_the_share_does_not_fit(tmp_path: Path) -> None:
    file = write_archive(tmp_path / "model.pt2", parts() | {"data/weights/weight_0": bytes(2 * MIB)})
    with pytest.raises(LoadError, match="the share is 1048576 bytes") as refused:
        Archive(file, MIB)
    assert refused.value.reason is Reason.DOES_NOT_FIT


@pytest.mark.parametrize("cut", [0, 10, 500])
def test_an_archive_that_is_cut_off_is_damaged(cut: int, tmp_path: Path) -> None:
    file = write_archive(tmp_path / "model.pt2", parts())
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(LoadError) as refused:
        Archive(file, MIB)
    assert refused.value.reason is Reason.CORRUPT_WEIGHTS


def test_a_part_with_other_bytes_than_its_checksum_is_damaged(tmp_path: Path) -> None:
    file = write_archive(tmp_path / "model.pt2", parts())
    file.write_bytes(file.read_bytes().replace(b"2.15.0", b"9.99.9"))
    with Archive(file, MIB) as archive, pytest.raises(LoadError) as refused:
        archive.json("models/model.json")
    assert refused.value.reason is Reason.CORRUPT_WEIGHTS


@pytest.mark.parametrize("content", [b"{", b"[" * 100_000])
def test_a_program_that_is_no_json_is_damaged(content: bytes, tmp_path: Path) -> None:
    file = write_archive(tmp_path / "model.pt2", parts() | {"models/model.json": content})
    with Archive(file, MIB) as archive, pytest.raises(LoadError) as refused:
        archive.json("models/model.json")
    assert refused.value.reason is Reason.CORRUPT_WEIGHTS
    assert json.dumps(refused.value.message)
