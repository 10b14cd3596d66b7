"""Products of matrices in int8, in an ONNX graph: weights rounded once, activations while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

_STEP, _ZERO, _LEAST, _LAST = "int8_step", "int8_zero", "int8_least", "int8_last"
# an x86 CPU without VNNI adds two products of uint8 and int8 in 16 bits: 2 × 255 × 63 fits, × 127 does not
_WEIGHT = 63


def quantize(model: ModelProto) -> None:
    """Let products with a constant matrix be of int8, in place; the heads' stay in float32.

    A weight has a scale for each of its columns, an activation one for each token: its largest absolute value
    (Dettmers et al. 2022, §3.1). onnxruntime's own quantize_dynamic has one for all tokens of a batch, so
    that what a text gives depends on the others. The scale of a token leaves its product again as a factor.
    Weights have seven bits: with eight, a CPU without VNNI saturates sums without a word."""
    from onnx import helper, numpy_helper

    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    heads, rounded, nodes = _near_outputs(graph), set(), []
    constants = {
        _STEP: np.array(1 / 127, np.float32),
        _ZERO: np.array(128, np.uint8),
        _LEAST: np.array(1e-30, np.float32),  # of a token that is all zeros
        _LAST: np.array([-1]),
    }
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in weights or node.output[0] in heads:
            nodes.append(node)
            continue
        x, weight = node.input
        if x not in rounded:
            nodes += _rounding(x)
            rounded.add(x)
        matrix = numpy_helper.to_array(weights[weight])
        scale = np.maximum(np.abs(matrix).max(0), 1e-30) / np.float32(_WEIGHT)  # (M,)
        constants |= {f"{weight}_int8": np.rint(matrix / scale).astype(np.int8), f"{weight}_scale": scale}
        nodes += _product(node, x, weight)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    kept += [numpy_helper.from_array(array, name) for name, array in constants.items()]
    for field, new in ((graph.node, nodes), (graph.initializer, kept)):
        del field[:]
        field.extend(new)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _near_outputs(graph: GraphProto) -> set[str]:
    """Outputs of the graph, and what the nodes behind them read: a head is a product and its bias."""
    outputs = {value.name for value in graph.output}
    return outputs | {name for node in graph.node if outputs & set(node.output) for name in node.input}


def _rounding(x: str) -> Iterator[NodeProto]:
    """x (..., D) → its largest absolute value for each token (..., 1), and x over that in uint8."""
    from onnx import helper

    yield helper.make_node("Abs", [x], [f"{x}_abs"])
    yield helper.make_node("ReduceMax", [f"{x}_abs", _LAST], [f"{x}_largest"], keepdims=1)
    yield helper.make_node("Max", [f"{x}_largest", _LEAST], [f"{x}_scale"])
    yield helper.make_node("Div", [x, f"{x}_scale"], [f"{x}_unit"])
    yield helper.make_node("QuantizeLinear", [f"{x}_unit", _STEP, _ZERO], [f"{x}_int8"])


def _product(node: NodeProto, x: str, weight: str) -> Iterator[NodeProto]:
    from onnx import helper

    operands = [f"{x}_int8", f"{weight}_int8", _STEP, f"{weight}_scale", _ZERO]
    product = f"{node.output[0]}_unit"
    yield helper.make_node("MatMulIntegerToFloat", operands, [product], domain="com.microsoft")
    yield helper.make_node("Mul", [product, f"{x}_scale"], list(node.output))
