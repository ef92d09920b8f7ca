"""torch.export archives: a small program as JSON, zipped as torch does, with whatever a test wants wrong in it."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = "archive"
_FIELDS = """
graph_module opset_version range_constraints schema_version verifiers torch_version guards_code
graph signature module_call_graph metadata treespec_namedtuple_fields inputs outputs nodes
tensor_values sym_int_values sym_bool_values is_single_tensor_return custom_obj_values
sym_float_values target kind arg name as_tensor as_int as_ints as_string as_operator as_expr
expr_str hint sizes strides storage_offset dtype device type index layout requires_grad input_specs
output_specs user_input user_output constant_input value min_val max_val major minor fqn in_spec
out_spec forward_arg_names config path_name is_param use_pickle tensor_meta as_device as_sym_int
buffer_mutation buffer_name buffer persistent as_float as_name as_bool is_hop_single_tensor_return
"""
FIELDS = frozenset(_FIELDS.split())
"""Of torch's schema, as far as the programs here use them."""


def symbol(name: str) -> str:
    return f"Symbol('{name}', positive=True, integer=True)"


def size(value: int | str) -> dict[str, Any]:
    """A fixed size, the name of a symbol, or an expression in torch's words."""
    if isinstance(value, int):
        return {"as_int": value}
    text = value if "(" in value else symbol(value)
    return {"as_expr": {"expr_str": text, "hint": {"as_int": 2}}}


def meta(*sizes: int | str, dtype: int = 7) -> dict[str, Any]:
    """A tensor's; dtype 7 is float32."""
    return {
        "dtype": dtype,
        "sizes": [size(one) for one in sizes],
        "requires_grad": False,
        "device": {"type": "cpu", "index": None},
        "strides": [{"as_int": 1} for _ in sizes],
        "storage_offset": {"as_int": 0},
        "layout": 7,
    }


def treespec(kind: str | None, context: Any = None, *children: Any) -> dict[str, Any]:
    shown = None if kind is None else json.dumps(context)
    return {"type": kind, "context": shown, "children_spec": list(children)}


LEAF = treespec(None)


def program(
    inputs: Mapping[str, Mapping[str, Any]],
    outputs: Mapping[str, Mapping[str, Any]],
    *,
    ranges: Mapping[str, tuple[int, int | None]] | None = None,
    guards: tuple[str, ...] = (),
    out_spec: Any = LEAF,
    in_spec: Any = None,
) -> dict[str, Any]:
    """`y = x + x` with tensors of these names; what it computes matters to no test that does not run it."""
    taken = treespec("builtins.tuple", None, *[LEAF for _ in inputs])
    spec = treespec("builtins.tuple", None, in_spec or taken, treespec("builtins.dict", []))
    first = next(iter(inputs))
    node = {
        "target": "torch.ops.aten.add.Tensor",
        "inputs": [{"name": name, "arg": {"as_tensor": {"name": first}}, "kind": 1} for name in ("self", "other")],
        "outputs": [{"as_tensor": {"name": next(iter(outputs))}}],
        "metadata": {"stack_trace": "File x"},
        "name": next(iter(outputs)),
    }
    return {
        "graph_module": {
            "graph": {
                "inputs": [{"as_tensor": {"name": name}} for name in inputs],
                "outputs": [{"as_tensor": {"name": name}} for name in outputs],
                "nodes": [node],
                "tensor_values": {**inputs, **outputs},
                "sym_int_values": {},
                "sym_bool_values": {},
                "is_single_tensor_return": False,
                "custom_obj_values": {},
                "sym_float_values": {},
            },
            "signature": {
                "input_specs": [{"user_input": {"arg": {"as_tensor": {"name": name}}}} for name in inputs],
                "output_specs": [{"user_output": {"arg": {"as_tensor": {"name": name}}}} for name in outputs],
            },
            "module_call_graph": [
                {
                    "fqn": "",
                    "signature": {
                        "inputs": [],
                        "outputs": [],
                        "in_spec": json.dumps([1, spec]),
                        "out_spec": json.dumps([1, out_spec]),
                        "forward_arg_names": list(inputs),
                    },
                }
            ],
            "metadata": {},
            "treespec_namedtuple_fields": {},
        },
        "opset_version": {"aten": 10},
        "range_constraints": {
            name: {"min_val": low, "max_val": high} for name, (low, high) in (ranges or {}).items()
        },
        "schema_version": {"major": 8, "minor": 20},
        "verifiers": ["TRAINING"],
        "torch_version": "2.15.0",
        "guards_code": list(guards),
    }


def parts(of: Any = None) -> dict[str, bytes]:
    """Of an archive without weights."""
    made = of if of is not None else program({"x": meta("s0", 4)}, {"y": meta("s0", 4)}, ranges={"s0": (1, 8)})
    return {
        "data/weights/model_weights_config.json": b'{"config": {}}',
        "data/constants/model_constants_config.json": b'{"config": {}}',
        "models/model.json": json.dumps(made).encode(),
        "data/sample_inputs/model.pt": b"never read",
        "archive_format": b"pt2",
        "archive_version": b"0",
        ".data/version": b"6\n",
        "byteorder": b"little",
        ".data/serialization_id": b"1" * 40,
    }


def write_archive(file: Path, content: Mapping[str, bytes], *, compress: bool = False, root: str = ROOT) -> Path:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        for name, data in content.items():
            archive.writestr(f"{root}/{name}", data)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(buffer.getvalue())
    return file


def rewrite_archive(file: Path, changes: Mapping[str, bytes | None]) -> None:
    """Parts of an archive that torch wrote: other bytes, or None to leave one out. New names are added."""
    with zipfile.ZipFile(file) as archive:
        root = archive.namelist()[0].partition("/")[0]
        content = {name.removeprefix(f"{root}/"): archive.read(name) for name in archive.namelist()}
    merged = {name: data for name, data in {**content, **changes}.items() if data is not None}
    write_archive(file, merged, root=root)
