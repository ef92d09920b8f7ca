"""Names, types and shapes of a torch.export program, and what is said of inputs that do not fit it."""

from typing import Any

import pytest
from tests.builders.archives import FIELDS, LEAF, meta, program, size, symbol, treespec

from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import LoadError
from cotenant_serving.engine.tensor_safety import safe_program
from cotenant_serving.engine.tensor_shapes import parse_dim, parse_guard
from cotenant_serving.engine.tensor_signature import Signature, read_signature
from cotenant_serving.request_fields import RequestError


def read(made: dict[str, Any]) -> Signature:
    safe = safe_program(made, FIELDS, lambda name, overload: True)
    return read_signature(safe, made["graph_module"]["module_call_graph"], made["guards_code"])


def two_inputs(**options: Any) -> Signature:
    inputs = {"x": meta("s0", 4), "scale": meta("s0", "s1", dtype=5)}
    ranges = {"s0": (1, 8), "s1": (2, None)}
    return read(program(inputs, {"y": meta("s0", 4)}, **{"ranges": ranges} | options))


def check(signature: Signature, **shapes: tuple[int, ...]) -> None:
    signature.check(shapes, {spec.name: spec.datatype for spec in signature.inputs})


def test_names_types_and_shapes_are_those_of_forward() -> None:
    signature = two_inputs()
    assert [(one.name, one.datatype, one.shape) for one in signature.inputs] == [
        ("x", "FP32", (-1, 4)),
        ("scale", "INT64", (-1, -1)),
    ]
    assert [(one.name, one.datatype, one.shape) for one in signature.outputs] == [("output", "FP32", (-1, 4))]


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        (treespec("builtins.dict", ["a", "b"], LEAF, LEAF), ["a", "b"]),
        (treespec("some.ModelOutput", ["a", "b"], LEAF, LEAF), ["a", "b"]),
        (treespec("builtins.tuple", None, LEAF, LEAF), ["output_0", "output_1"]),
        (treespec("builtins.dict", ["a", "a"], LEAF, LEAF), ["output_0", "output_1"]),
        (treespec("builtins.dict", ["a"], treespec("builtins.tuple", None, LEAF, LEAF)), ["output_0", "output_1"]),
    ],
)
def test_outputs_are_named_by_the_keys_of_a_dict_or_by_their_number(spec: Any, names: list[str]) -> None:
    made = program({"x": meta(4)}, {"y": meta(4), "z": meta(4)}, out_spec=spec)
    assert [one.name for one in read(made).outputs] == names


def test_parts_of_nested_inputs_are_found_by_their_place() -> None:
    nested = treespec(
        "builtins.tuple", None, treespec("builtins.dict", ["a", "b"], LEAF, treespec("builtins.list", None, LEAF))
    )
    guards = ("L['d']['a'].size()[0] == L['d']['b'][0].size()[0]",)
    made = program({"d_a": meta("s0"), "d_b_0": meta("s1")}, {"y": meta("s0")}, in_spec=nested, guards=guards)
    made["graph_module"]["module_call_graph"][0]["signature"]["forward_arg_names"] = ["d"]
    signature = read(made)
    assert signature.paths == {("d", "a"): "d_a", ("d", "b", 0): "d_b_0"}
    check(signature, d_a=(3,), d_b_0=(3,))
    with pytest.raises(RequestError, match=r"L\['d'\]\['a'\].*d_a: \[3\], d_b_0: \[4\]"):
        check(signature, d_a=(3,), d_b_0=(4,))


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"x": (2, 4), "scale": (2,)}, "Input 'scale' has shape [2]; it must have 2 dimensions, [-1, -1]"),
        ({"x": (2, 5), "scale": (2, 3)}, "Input 'x' has shape [2, 5]; it must have shape[1] 4"),
        ({"x": (9, 4), "scale": (9, 3)}, "shape[0] 1 to 8"),
        ({"x": (2, 4), "scale": (2, 1)}, "shape[1] 2 or more"),
        ({"x": (2, 4), "scale": (3, 3)}, "Input 'scale' has shape [3, 3]; it must have shape[0] 2, as another"),
    ],
)
def test_a_shape_that_does_not_fit_is_a_400_that_names_the_input(
    shapes: dict[str, tuple[int, ...]], words: str
) -> None:
    with pytest.raises(RequestError) as refused:
        check(two_inputs(), **shapes)
    assert refused.value.status == 400
    assert words in refused.value.message


def test_another_datatype_is_a_400_that_names_the_input() -> None:
    with pytest.raises(RequestError, match="Input 'scale' has datatype INT32; it must have INT64"):
        two_inputs().check({"x": (1, 4), "scale": (1, 2)}, {"x": "FP32", "scale": "INT32"})


def test_sizes_that_follow_from_others_are_checked() -> None:
    doubled = f"Mul(Integer(2), {symbol('s0')})"
    signature = read(program({"x": meta("s0"), "y": meta(doubled)}, {"z": meta("s0")}, ranges={"s0": (2, 9)}))
    check(signature, x=(3,), y=(6,))
    for shapes, words in (
        ({"x": (3,), "y": (8,)}, "shape[0] 6, as another"),
        ({"x": (3,), "y": (7,)}, "Mul(2, s0)"),
        ({"x": (1,), "y": (2,)}, "2 to 9"),
    ):
        with pytest.raises(RequestError) as refused:
            check(signature, **shapes)  # type: ignore[arg-type]
        assert words in refused.value.message
    added = f"Add({symbol('s0')}, Integer(1))"
    signature = read(program({"x": meta("s0"), "y": meta(added)}, {"z": meta("s0")}))
    check(signature, x=(3,), y=(4,))
    with pytest.raises(RequestError, match=r"shape\[0\] 4, as other sizes are"):
        check(signature, x=(3,), y=(3,))


def test_conditions_of_the_program_are_checked() -> None:
    signature = two_inputs(guards=("(L['x'].size()[0] % 2) == 0 or L['scale'].size()[1] > 5", "not False"))
    check(signature, x=(2, 4), scale=(2, 3))
    check(signature, x=(3, 4), scale=(3, 6))
    with pytest.raises(RequestError, match="condition of this model"):
        check(signature, x=(3, 4), scale=(3, 3))


@pytest.mark.parametrize(
    ("changes", "batch"),
    [
        ({}, "s0"),
        ({"guards": ("L['x'].size()[0] == L['scale'].size()[0]",)}, "s0"),
        ({"guards": ("L['x'].size()[0] % 2 == 0",)}, None),
        ({"guards": ("L['scale'].size()[1] != 3",)}, "s0"),
    ],
)
def test_requests_join_along_a_dimension_that_nothing_else_depends_on(
    changes: dict[str, Any], batch: str | None
) -> None:
    assert two_inputs(**changes).batch == batch


@pytest.mark.parametrize(
    "outputs",
    [{"y": meta(4)}, {"y": meta("s1", 4)}, {"y": meta("s0", "s0")}, {"y": meta()}, {"y": meta("s0"), "z": meta(1)}],
)
def test_without_one_row_for_each_row_requests_do_not_join(outputs: dict[str, Any]) -> None:
    spec = treespec("builtins.tuple", None, *[LEAF for _ in outputs])
    made = program({"x": meta("s0", 4), "b": meta("s0", "s1")}, outputs, out_spec=spec)
    assert read(made).batch is None


def unserved(**changes: Any) -> dict[str, Any]:
    made = program({"x": meta("s0", 4)}, {"y": meta("s0", 4)}, guards=changes.get("guards", ()))
    signature = made["graph_module"]["signature"]
    if "input" in changes:
        signature["input_specs"] = [changes["input"]]
    if "output" in changes:
        signature["output_specs"] = [changes["output"]]
    if "sizes" in changes:
        made["graph_module"]["graph"]["tensor_values"]["x"]["sizes"] = [size(one) for one in changes["sizes"]]
    if "dtype" in changes:
        made["graph_module"]["graph"]["tensor_values"]["x"]["dtype"] = changes["dtype"]
    return made


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (unserved(input={"user_input": {"arg": {"as_sym_int": {"as_name": "n"}}}}), "not a tensor"),
        (unserved(output={"user_output": {"arg": {"as_int": 3}}}), "output 0 is not a tensor"),
        (unserved(output={"buffer_mutation": {"arg": {"name": "y"}, "buffer_name": "b"}}), "eval mode"),
        (unserved(dtype=10), "dtype of x"),
        (unserved(sizes=(f"Add({symbol('s5')}, Integer(1))", 4)), "says nothing of its parts"),
        (unserved(guards=("L['z'].size()[0] == 2",)), "of no input"),
        (unserved(guards=("L['x'].item() == 2",)), "condition"),
        (unserved(guards=("__import__('os').system('x')",)), "condition"),
    ],
)
def test_what_cannot_be_served_is_refused_at_load(made: dict[str, Any], words: str) -> None:
    with pytest.raises(LoadError) as refused:
        read(made)
    assert refused.value.reason is Reason.UNSUPPORTED_ARCHITECTURE
    assert words in refused.value.message


def test_constants_among_the_arguments_are_not_asked_for() -> None:
    made = program({"x": meta("s0", 4), "flag": meta(1)}, {"y": meta("s0", 4)})
    specs = made["graph_module"]["signature"]["input_specs"]
    specs[1] = {"constant_input": {"name": "flag", "value": {"as_bool": True}}}
    specs.insert(0, {"buffer": {"arg": {"name": "b"}, "buffer_name": "b", "persistent": True}})
    assert [one.name for one in read(made).inputs] == ["x"]


@pytest.mark.parametrize("text", ["L['x'].size()[0]", "L['x'].size()[0] ** 2 == 1", "x == 1", "1 ==", "[1] == [1]"])
def test_a_guard_of_another_kind_is_no_guard(text: str) -> None:
    if text == "L['x'].size()[0]":
        assert parse_guard(text).sizes == {(("x",), 0)}
    else:
        with pytest.raises(ValueError, match="condition"):
            parse_guard(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Add(Mul(Integer(2), Symbol('s0')), Integer(-1))", 13),
        ("FloorDiv(Symbol('s0'), Integer(2))", 3),
        ("CeilDiv(Symbol('s0'), Integer(2))", 4),
        ("Mod(Symbol('s0'), Integer(4))", 3),
        ("Max(Integer(9), Symbol('s0'))", 9),
        ("Min(Integer(9), Symbol('s0'))", 7),
        ("Pow(Symbol('s0'), Integer(2))", 49),
        ("Integer(5)", 5),
    ],
)
def test_sizes_are_computed_from_symbols(text: str, value: int) -> None:
    assert parse_dim({"as_expr": {"expr_str": text}}).value({"s0": 7}) == value
