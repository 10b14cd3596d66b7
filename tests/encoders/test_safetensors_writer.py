"""The safetensors writer against the library."""

import pytest
import torch
from safetensors.torch import load, save

from multitask.encoders.safetensors_writer import serialize

TENSORS = {
    "z.weight": torch.randn(3, 4),
    "a": torch.tensor(1.5),
    "generator": torch.arange(9, dtype=torch.uint8),
    "sums": torch.randn(2, 3, dtype=torch.float64),
    "none": torch.zeros(0, 5),
    "half": torch.randn(3).bfloat16(),
    "with \"quotes\" and é": torch.ones(1),
}  # fmt: skip


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
@pytest.mark.parametrize("names", [list(TENSORS), ["sums"], []])
def test_the_bytes_equal_those_of_the_library(names, metadata):
    tensors = {name: TENSORS[name] for name in names}
    assert b"".join(serialize(tensors, metadata)) == save(tensors, metadata)


def test_a_tensor_that_is_not_contiguous_is_written_in_the_order_of_its_elements():
    transposed = torch.randn(4, 5).T
    assert torch.equal(load(b"".join(serialize({"transposed": transposed})))["transposed"], transposed)
