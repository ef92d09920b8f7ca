"""A checked archive → a program on its device. The only module that hands an archive's content to torch.

torch's own `torch.export.load` is not used, as it unpickles; its deserializer is, on what `tensor_safety` let pass.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cotenant_serving.contract import DeviceKind, Reason
from cotenant_serving.engine.base import LoadError
from cotenant_serving.engine.tensor_archive import CONFIGS, CONSTANTS, PROGRAM, WEIGHTS, Archive
from cotenant_serving.engine.tensor_safety import UnsafeProgramError, safe_payloads, safe_program
from cotenant_serving.engine.tensor_signature import Signature, read_signature


@dataclass(frozen=True, slots=True)
class Program:
    """`run` takes the inputs as tensors in the signature's order and returns the outputs in theirs."""

    signature: Signature
    hints: Mapping[str, int]
    """Sizes of symbols with which the model was exported."""
    own: Sequence[Any]
    """The model's own tensors."""
    run: Callable[[Sequence[Any]], Sequence[Any]]


def load_program(archive: Archive, device: DeviceKind) -> Program:
    """Raises LoadError. After `loader.prepare_torch`."""
    fields = _schema_fields()
    original = archive.json(PROGRAM)
    program = safe_program(original, fields, _is_aten)
    tensors = {
        part: _tensors(archive, part, safe_payloads(archive.json(config), fields)) for part, config in CONFIGS.items()
    }
    signature = read_signature(program, _call_graph(original), original.get("guards_code") or [])
    exported = _deserialize(program, tensors[WEIGHTS], tensors[CONSTANTS])
    if device == "cuda":
        from torch.export.passes import move_to_device_pass

        exported = move_to_device_pass(exported, "cuda")  # not run on a GPU
    own = {**exported.state_dict, **exported.constants}
    return Program(signature, _hints(program), list(own.values()), _runner(exported, own))


def _call_graph(original: Any) -> Any:
    return original.get("graph_module", {}).get("module_call_graph")


def _schema_fields() -> frozenset[str]:
    """Names of all fields that this torch knows in an archive."""
    import dataclasses

    from torch._export.serde import schema

    classes = [one for one in vars(schema).values() if dataclasses.is_dataclass(one)]
    return frozenset(field.name for one in classes for field in dataclasses.fields(one))


def _is_aten(name: str, overload: str) -> bool:
    import torch

    packet: Any = getattr(torch.ops.aten, name, None)
    if not isinstance(packet, torch._ops.OpOverloadPacket) or overload not in packet.overloads():  # type: ignore[no-untyped-call]
        return False
    # Without a kernel it is TorchScript's own: text, files, random state.
    qualified = f"aten::{name}" if overload == "default" else f"aten::{name}.{overload}"
    return bool(torch._C._dispatch_has_kernel(qualified))


def _tensors(archive: Archive, part: str, payloads: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Several may be views of the same bytes, as tied weights are."""
    buffers = {
        name: archive.read_buffer(part + name) for name in {str(one["path_name"]) for one in payloads.values()}
    }
    return {name: _tensor(name, one, buffers[one["path_name"]]) for name, one in payloads.items()}


def _tensor(name: str, payload: Mapping[str, Any], data: bytearray) -> Any:
    """Raises LoadError(CorruptWeights) when its bytes are not what the archive says."""
    import torch
    from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE

    try:
        meta = payload["tensor_meta"]
        dtype = _SERIALIZE_TO_TORCH_DTYPE[meta["dtype"]]
        sizes, strides = ([int(one["as_int"]) for one in meta[field]] for field in ("sizes", "strides"))
        flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        made = torch.as_strided(flat, sizes, strides, int(meta["storage_offset"]["as_int"]))
        if not data and made.numel():
            raise ValueError("it has no bytes")
        return torch.nn.Parameter(made, requires_grad=False) if payload["is_param"] else made
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise LoadError(
            Reason.CORRUPT_WEIGHTS,
            f"tensor {name} of the archive is not what its description says ({error}). Fetch or save it again.",
        ) from error


def _deserialize(program: dict[str, Any], weights: Mapping[str, Any], constants: Mapping[str, Any]) -> Any:
    import torch
    from torch._export.serde import schema
    from torch._export.serde.serialize import ExportedProgramDeserializer, _dict_to_dataclass

    program["graph_module"]["module_call_graph"] = _flat_call_graph(program)
    program["torch_version"] = torch.__version__
    made: Any = _dict_to_dataclass(schema.ExportedProgram, program)  # type: ignore[no-untyped-call]
    exported = ExportedProgramDeserializer().deserialize(made, dict(weights), dict(constants), None)
    for module in exported.graph_module.modules():
        for node in getattr(module, "graph", torch.fx.Graph()).nodes:
            if node.op not in ("placeholder", "call_function", "get_attr", "output"):
                raise UnsafeProgramError(f"a step of kind {node.op}")
    return exported


def _flat_call_graph(program: Mapping[str, Any]) -> list[dict[str, Any]]:
    """In the place of the archive's own, whose parts are looked up by name: all inputs in a row, all outputs too."""
    from torch.utils import _pytree as pytree

    signature = program["graph_module"]["signature"]
    given = sum(next(iter(one)) in ("user_input", "constant_input") for one in signature["input_specs"])
    taken: Any = (tuple(range(given)), {})
    return [
        {
            "fqn": "",
            "signature": {
                "inputs": [],
                "outputs": [],
                "in_spec": pytree.treespec_dumps(pytree.tree_structure(taken)),
                "out_spec": pytree.treespec_dumps(pytree.tree_structure(tuple(signature["output_specs"][:0]))),
                "forward_arg_names": None,
            },
        }
    ]


def _hints(program: Mapping[str, Any]) -> dict[str, int]:
    from cotenant_serving.engine.tensor_shapes import parse_dim

    hints: dict[str, int] = {}
    for meta in program["graph_module"]["graph"]["tensor_values"].values():
        for size in meta["sizes"]:
            symbol = parse_dim(size).symbol if "as_expr" in size else None
            hint = size["as_expr"].get("hint") if symbol else None
            if symbol and hint and type(hint.get("as_int")) is int:
                hints[symbol] = hint["as_int"]
    return hints


def _runner(exported: Any, own: Mapping[str, Any]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """The graph itself takes the model's own tensors first, then the user's."""
    from torch.export.graph_signature import ConstantArgument, InputKind

    graph_module = exported.graph_module
    slots: list[tuple[bool, Any]] = []
    for spec in exported.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT:
            slots.append((True, own[spec.target]))
        elif isinstance(spec.arg, ConstantArgument):
            slots.append((True, spec.arg.value))
        else:
            slots.append((False, None))

    def run(inputs: Sequence[Any]) -> Sequence[Any]:
        given = iter(inputs)
        outputs = graph_module(*(value if fixed else next(given) for fixed, value in slots))
        return outputs if isinstance(outputs, tuple | list) else (outputs,)

    return run
