"""Tensors of the Open Inference Protocol ↔ torch's. Bytes are little-endian and row-major on both sides."""

from typing import Any

from cotenant_serving.oip_api import InferTensor, OutputTensor

_TORCH = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "BF16": "bfloat16",
    "FP32": "float32",
    "FP64": "float64",
}


def dtype_of(datatype: str) -> Any:
    import torch

    return getattr(torch, _TORCH[datatype])


def to_torch(tensor: InferTensor) -> Any:
    """A tensor of its own, on the CPU: a program may write to its inputs."""
    import torch

    dtype = dtype_of(tensor.datatype)
    if isinstance(tensor.data, memoryview):
        return torch.frombuffer(bytearray(tensor.data), dtype=dtype).reshape(tensor.shape)
    return torch.tensor(tensor.data, dtype=dtype).reshape(tensor.shape)


def to_oip(name: str, datatype: str, tensor: Any) -> OutputTensor:
    """`tensor` on the CPU."""
    import torch

    data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return OutputTensor(name, datatype, tuple(tensor.shape), data)
