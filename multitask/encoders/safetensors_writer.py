"""Tensors → the bytes of a safetensors file, piece by piece, so that no second copy of them is made.

The library serialises into a buffer of its own and that into another, which takes longer than writing."""

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
    """What safetensors.torch.save gives, in pieces: the length of the head, the head, and each tensor's
    memory, the widest types first, then by name. Tensors on another device are copied one by one."""
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    ends = list(accumulate((tensors[name].nbytes for name in order), initial=0))
    head = {"__metadata__": dict(metadata)} if metadata else {}
    for name, begin, end in zip(order, ends, ends[1:]):
        tensor = tensors[name]
        shape, offsets = list(tensor.shape), [begin, end]
        head[name] = {"dtype": _NAMES[tensor.dtype], "shape": shape, "data_offsets": offsets}
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield memoryview(len(text).to_bytes(8, "little"))
    yield memoryview(text)
    for name in order:
        yield tensors[name].detach().cpu().reshape(-1).view(torch.uint8).numpy().data
