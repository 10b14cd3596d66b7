"""A torch model as an ONNX graph, and the graph as files."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from multitask.inference.onnx_runner import INPUTS, MODEL, OUTPUTS

if TYPE_CHECKING:
    from onnx import ModelProto

DATA = f"{MODEL}.data"
_LIMIT = (1 << 31) - (1 << 20)  # bytes of weights in one file: protobuf ends at 2 GB, the graph wants some
_PAGE = 4096  # bytes: what begins at a multiple of it can be mapped
_SMALL = 1024  # bytes of a tensor that stays in the graph


class _Outputs(nn.Module):
    """A MultiTaskTransformer's three outputs, from one pass."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids and mask (B, T) → sentence logits (B, C), token logits (B, T, K), embeddings (B, D)."""
        hidden = self.model.encode(input_ids, attention_mask)
        return *self.model.heads(hidden, attention_mask), self.model.pool(hidden, attention_mask)


def export_graph(model) -> ModelProto:
    """A MultiTaskTransformer → its graph in float32, for any number of texts of any length.

    Without what the exporter notes of each node: it names files of this machine."""
    length = model.config.max_position_embeddings
    example = torch.ones(2, max(2, min(7, length - 1)), dtype=torch.long)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=length)}
    attention, was_training = model.config._attn_implementation, model.training
    # torch's fused attention allows for texts without any token, of which its graph is a third larger
    model.set_attn_implementation("eager")
    try:
        with _quiet():
            program = torch.onnx.export(
                _Outputs(model).eval(),
                (example, torch.ones_like(example)),
                input_names=INPUTS,
                output_names=OUTPUTS,
                dynamic_shapes=(axes, axes),
                dynamo=True,
                verbose=False,
            )
            graph = program.model_proto
    finally:
        model.set_attn_implementation(attention)
        model.train(was_training)
    main = graph.graph
    for item in (graph, main, *main.node, *main.initializer, *main.input, *main.output, *main.value_info):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    return graph


def graph_files(graph: ModelProto) -> Iterator[tuple[str, list[bytes]]]:
    """(name, pieces of its content) of the files that hold a graph: one, or, where its weights are more than
    protobuf bears, two. It is then without them afterwards."""
    from onnx import TensorProto
    from onnx.external_data_helper import set_external_data

    tensors = graph.graph.initializer
    if sum(len(tensor.raw_data) for tensor in tensors) > _LIMIT:
        pieces, at = [], 0
        for tensor in tensors:
            if len(raw := tensor.raw_data) < _SMALL:
                continue
            set_external_data(tensor, DATA, offset=at, length=len(raw))
            tensor.data_location = TensorProto.EXTERNAL
            tensor.ClearField("raw_data")
            pieces += [raw, bytes(-len(raw) % _PAGE)]
            at += len(raw) + len(pieces[-1])
        yield DATA, pieces
    yield MODEL, [graph.SerializeToString(deterministic=True)]


@contextmanager
def _quiet():
    """Without the exporter's warnings, which are about itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
