"""Translate a torch model into an ONNX graph, and a graph into files."""

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

    from model import MultiTaskOutput, MultiTaskTransformer

DATA = f"{MODEL}.data"
ONE_FILE = (1 << 31) - (1 << 20)  # bytes of weights: protobuf allows 2 GB, and the graph needs some of it
SMALL = 1024  # bytes; smaller tensors stay in the graph
_PAGE = 4096  # bytes; a tensor that begins at a multiple of it can be memory-mapped


class _Outputs(nn.Module):
    """All three outputs of a model from one pass."""

    def __init__(self, model: MultiTaskTransformer):
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids and mask (B, T) → sentence logits (B, C), token logits (B, T, K), embeddings (B, D)."""
        states = self.model.states(input_ids, attention_mask)
        output: MultiTaskOutput = self.model.heads(states, attention_mask)
        return output.sentence_logits, output.token_logits, self.model.pool(states[-1], attention_mask)


def export_graph(model: MultiTaskTransformer) -> ModelProto:
    """A model → its graph in float32, for any batch size and any length up to the encoder's positions.

    Leaves out the exporter's notes on each node, since they name files of this machine."""
    length = model.config.num_positions
    example = torch.ones(2, max(2, min(7, length - 1)), dtype=torch.long)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=length)}
    attention, was_training = model.config._attn_implementation, model.training
    # torch's fused attention handles texts without any token, which makes its graph a third larger
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
            assert program is not None  # it is with dynamo=True
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
    """A graph → (name, pieces of the content) of its files: one, or two if it has more than ONE_FILE bytes of
    weights. In that case the weights are removed from `graph` itself."""
    from onnx import TensorProto
    from onnx.external_data_helper import set_external_data

    tensors = graph.graph.initializer
    if sum(len(tensor.raw_data) for tensor in tensors) > ONE_FILE:
        pieces: list[bytes] = []
        offset = 0
        for tensor in tensors:
            if len(raw := tensor.raw_data) < SMALL:
                continue
            set_external_data(tensor, DATA, offset=offset, length=len(raw))
            tensor.data_location = TensorProto.EXTERNAL
            tensor.ClearField("raw_data")
            pieces += [raw, bytes(-len(raw) % _PAGE)]
            offset += len(raw) + len(pieces[-1])
        yield DATA, pieces
    yield MODEL, [graph.SerializeToString(deterministic=True)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's log messages and warnings, which concern only itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
