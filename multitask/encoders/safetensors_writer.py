"""Serialize tensors to a safetensors file piece by piece, without a copy of them in memory.

The safetensors library copies all tensors twice, which takes longer than writing the file."""

import json
from collections.abc import Iterator, Mapping
from itertools import accumulate

import torch
from torch import Tensor

_NAMES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.uint8: "U8",
}


def serialize(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> Iterator[memoryview]:
    """Tensors → the bytes that safetensors.torch.save gives, in pieces: the header's length, the header, then
    the memory of each tensor, the widest types first, then by name. GPU tensors are copied one by one."""
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    ends = list(accumulate((tensors[name].nbytes for name in order), initial=0))
    header: dict[str, dict] = {"__metadata__": dict(metadata)} if metadata else {}
    for name, begin, end in zip(order, ends, ends[1:]):
        tensor = tensors[name]
        shape, offsets = list(tensor.shape), [begin, end]
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": shape, "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield memoryview(len(text).to_bytes(8, "little"))
    yield memoryview(text)
    for name in order:
        yield tensors[name].detach().cpu().reshape(-1).view(torch.uint8).numpy().data
