"""What a torch.export program takes and gives: names, types, what shapes must fulfil, how requests join. Pure.

Inputs are named as the parameters of `forward()`; parts of nested ones are joined by `_` (`d["a"]` is `d_a`). Outputs
are named by the keys when `forward()` returns a dict, else `output`, or `output_0`, `output_1` … for several.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import LoadError
from cotenant_serving.engine.tensor_shapes import Dim, Guard, Path, parse_dim, parse_guard
from cotenant_serving.request_fields import RequestError

DATATYPES: Mapping[int, str] = {
    1: "UINT8",
    2: "INT8",
    3: "INT16",
    4: "INT32",
    5: "INT64",
    6: "FP16",
    7: "FP32",
    8: "FP64",
    12: "BOOL",
    13: "BF16",
    28: "UINT16",
    34: "UINT32",
    35: "UINT64",
}
"""torch's numbers of dtypes in archives → the protocol's names."""
MAX_NAME_CHARS = 100
_COUNTED = re.compile(r"(.+)_([0-9]{1,6})")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    name: str
    datatype: str
    dims: tuple[Dim, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """-1 is any size."""
        return tuple(-1 if dim.size is None else dim.size for dim in self.dims)


@dataclass(frozen=True, slots=True)
class Signature:
    """`ranges`: least and greatest size of a symbol, None without a greatest. `paths`: names of inputs by place."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    ranges: Mapping[str, tuple[int, int | None]]
    guards: tuple[Guard, ...] = ()
    paths: Mapping[Path, str] = field(default_factory=dict)

    @property
    def batch(self) -> str | None:
        """The symbol of dimension 0 of every input and output, when that is all that it is: then requests are joined
        along it. A program in which rows depend on each other must not be exported so."""
        tensors = (*self.inputs, *self.outputs)
        first = {tensor.dims[0].symbol if tensor.dims else None for tensor in tensors}
        symbol = next(iter(first))
        if len(first) != 1 or symbol is None:
            return None
        elsewhere = any(symbol in dim.symbols for tensor in tensors for dim in tensor.dims[1:])
        demanding = any(not guard.is_equality and self._looks_at_rows(guard) for guard in self.guards)
        return None if elsewhere or demanding else symbol

    def _looks_at_rows(self, guard: Guard) -> bool:
        return any(dimension == 0 for _, dimension in guard.sizes)

    def check(self, shapes: Mapping[str, Sequence[int]], datatypes: Mapping[str, str]) -> None:
        """Of all inputs, by name. Raises RequestError (400) that names the input."""
        sizes: dict[str, int] = {}
        for spec in self.inputs:
            if datatypes[spec.name] != spec.datatype:
                raise _wrong(spec.name, f"has datatype {datatypes[spec.name]}", f"{spec.datatype}")
            self._bind(spec, shapes[spec.name], sizes)
        for spec in self.inputs:
            for index, dim in enumerate(spec.dims):
                if dim.value(sizes) != shapes[spec.name][index]:
                    raise _wrong_shape(
                        spec, shapes[spec.name], f"shape[{index}] {dim.value(sizes)}, as other sizes are"
                    )
        for guard in self.guards:
            if not guard.holds(lambda path: shapes[self.paths[path]]):
                raise RequestError(
                    400,
                    f"The shapes of the inputs do not fulfil a condition of this model: {guard.text}. They are "
                    + ", ".join(f"{name}: {list(shape)}" for name, shape in shapes.items())
                    + ".",
                    param="inputs",
                    code="invalid_value",
                )

    def _bind(self, spec: TensorSpec, shape: Sequence[int], sizes: dict[str, int]) -> None:
        if len(shape) != len(spec.dims):
            raise _wrong_shape(spec, shape, f"{len(spec.dims)} dimensions, {list(spec.shape)}")
        for index, (dim, given) in enumerate(zip(spec.dims, shape, strict=True)):
            if dim.size is not None:
                if given != dim.size:
                    raise _wrong_shape(spec, shape, f"shape[{index}] {dim.size}, of {list(spec.shape)}")
                continue
            solved = dim.solve(given)
            if solved is None:
                if dim.solvable:
                    raise _wrong_shape(spec, shape, f"shape[{index}] another multiple: it is {describe(dim)}")
                continue
            symbol, size = solved
            low, high = self.ranges.get(symbol, (0, None))
            if size < low or (high is not None and size > high):
                span = f"{dim.value({symbol: low})} or more"
                span = span if high is None else f"{dim.value({symbol: low})} to {dim.value({symbol: high})}"
                raise _wrong_shape(spec, shape, f"shape[{index}] {span}")
            if sizes.setdefault(symbol, size) != size:
                raise _wrong_shape(spec, shape, f"shape[{index}] {dim.value(sizes)}, as another input's")


def describe(dim: Dim) -> str:
    def text(tree: Any) -> str:
        return f"{tree[0]}({', '.join(map(text, tree[1]))})" if isinstance(tree, tuple) else str(tree)

    return text(dim.tree)


def _wrong(name: str, given: str, wanted: str) -> RequestError:
    return RequestError(
        400, f"Input '{name}' {given}; it must have {wanted}.", param=f"inputs.{name}", code="invalid_value"
    )


def _wrong_shape(spec: TensorSpec, shape: Sequence[int], wanted: str) -> RequestError:
    return _wrong(spec.name, f"has shape {list(shape)}", wanted)


def read_signature(program: Mapping[str, Any], call_graph: Any, guards: Sequence[str]) -> Signature:
    """From the checked program, and the two parts of it that torch does not get.

    Raises LoadError(UnsupportedArchitecture) for what cannot be served over the protocol.
    """
    try:
        module = program["graph_module"]
        graph, signature = module["graph"], module["signature"]
        spec = call_graph[0]["signature"]
        leaves = list(_leaves(_treespec(spec["in_spec"])))
        inputs = [_user_input(one) for one in signature["input_specs"] if "parameter" not in one]
        names = [name for name in inputs if name is not None]
        paths = _argument_paths(leaves, spec["forward_arg_names"] or [])
        outputs = [_user_output(index, one) for index, one in enumerate(signature["output_specs"])]
        made = Signature(
            tuple(_tensor(name, name, graph) for name in names if name),
            tuple(
                _tensor(shown, name, graph)
                for shown, name in zip(_output_names(spec["out_spec"], len(outputs)), outputs, strict=True)
            ),
            {
                symbol: (int(one["min_val"] or 0), one["max_val"])
                for symbol, one in program["range_constraints"].items()
            },
            tuple(map(parse_guard, guards)),
            _places({path: name for path, name in zip(paths, names, strict=True) if name}),
        )
        _check_served(made)
    except (KeyError, IndexError, TypeError, AttributeError, SyntaxError) as error:
        raise _unsupported(f"its signature cannot be read ({type(error).__name__}: {error})") from error
    except ValueError as error:
        raise _unsupported(f"{error}") from error
    return made


def _check_served(made: Signature) -> None:
    """Raises ValueError."""
    if not made.inputs or not made.outputs:
        raise ValueError("it has no inputs, or no outputs, that are tensors")
    bound = {
        dim.symbol or (dim.solve(0) or ("",))[0] for spec in made.inputs for dim in spec.dims if dim.size is None
    }
    for spec in made.inputs:
        for dim in spec.dims:
            if not dim.symbols <= bound:
                raise ValueError(f"a size of input {spec.name} is {describe(dim)}, which says nothing of its parts")
    ranks = {spec.name: len(spec.dims) for spec in made.inputs}
    for guard in made.guards:
        for path, dimension in guard.sizes:
            if dimension >= ranks.get(made.paths.get(path, ""), 0):
                raise ValueError(f"the condition {guard.text} is of no input")


def _user_input(spec: Mapping[str, Any]) -> str | None:
    """Name of a tensor that the user gives; empty for a constant; None for the model's own."""
    kind, value = next(iter(spec.items()))
    if kind in ("buffer", "tensor_constant"):
        return None
    if kind == "constant_input":
        return ""
    if kind != "user_input" or "as_tensor" not in value["arg"]:
        raise ValueError(f"its input {json.dumps(value)[:80]} is not a tensor (it is of kind {kind})")
    return str(value["arg"]["as_tensor"]["name"])


def _user_output(index: int, spec: Mapping[str, Any]) -> str:
    kind, value = next(iter(spec.items()))
    if kind != "user_output":
        raise ValueError(f"it changes its own state or its inputs ({kind}); export it in eval mode: model.eval()")
    if "as_tensor" not in value["arg"]:
        raise ValueError(f"its output {index} is not a tensor; let forward() return tensors only")
    return str(value["arg"]["as_tensor"]["name"])


def _tensor(shown: str, name: str, graph: Mapping[str, Any]) -> TensorSpec:
    meta = graph["tensor_values"][name]
    datatype = DATATYPES.get(meta["dtype"])
    if datatype is None:
        raise ValueError(f"the dtype of {shown} (number {meta['dtype']}) has no name in the protocol")
    return TensorSpec(shown, datatype, tuple(map(parse_dim, meta["sizes"])))


def _treespec(text: str) -> Any:
    """torch writes `[version, {"type": …, "context": …, "children_spec": […]}]`."""
    return json.loads(text)[1]


def _leaves(spec: Mapping[str, Any], path: Path = ()) -> Iterator[Path]:
    kind, children = spec["type"], spec["children_spec"]
    if kind is None:
        yield path
        return
    steps: Sequence[str | int] = range(len(children))
    if kind in ("builtins.dict", "collections.OrderedDict"):
        steps = json.loads(spec["context"])
    elif kind not in ("builtins.tuple", "builtins.list"):
        raise ValueError(f"an input is a {kind}; let forward() take tensors, tuples, lists and dicts only")
    for step, child in zip(steps, children, strict=True):
        yield from _leaves(child, (*path, step))


def _argument_paths(leaves: Sequence[Path], names: Sequence[str]) -> list[Path]:
    """(0, i, …) and (1, name, …), for positional and named arguments → (name of the parameter, …)."""
    return [(names[int(path[1])], *path[2:]) if path[0] == 0 else path[1:] for path in leaves]


def _places(names: Mapping[Path, str]) -> dict[Path, str]:
    """The arguments of `forward(*xs)` are called xs_0, xs_1 …, and xs[0], xs[1] … in conditions."""
    counted = {
        (found[1], int(found[2]), *path[1:]): name
        for path, name in names.items()
        if (found := _COUNTED.fullmatch(str(path[0])))
    }
    return {**counted, **names}


def _output_names(text: str, count: int) -> list[str]:
    spec = _treespec(text)
    if spec["type"] is None:
        return ["output"]
    keys = json.loads(spec["context"]) if spec["context"] else None
    flat = all(child["type"] is None for child in spec["children_spec"])
    if flat and isinstance(keys, list) and len(keys) == count and _are_names(keys):
        return keys
    return [f"output_{index}" for index in range(count)]


def _are_names(keys: Sequence[Any]) -> bool:
    texts = [key for key in keys if isinstance(key, str) and 0 < len(key) <= MAX_NAME_CHARS]
    return len(set(texts)) == len(keys)


def _unsupported(why: str) -> LoadError:
    return LoadError(
        Reason.UNSUPPORTED_ARCHITECTURE,
        f"this torch.export program cannot be served over the Open Inference Protocol: {why}. Export it again.",
    )
