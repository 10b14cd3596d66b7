"""Quantize the matrix multiplications of an ONNX graph to int8: weights once, activations at run time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

_STEP, _ZERO, _MINIMUM, _LAST_AXIS = "int8_step", "int8_zero", "int8_minimum", "int8_last_axis"
# an x86 CPU without VNNI adds two products of uint8 and int8 in 16 bits: 2 × 255 × 63 fits, × 127 does not
_MAX_WEIGHT = 63


def quantize(model: ModelProto) -> None:
    """Quantize every multiplication by a constant matrix, in place; the heads stay in float32.

    Each weight column and each token has its own scale, its largest absolute value (Dettmers et al. 2022,
    §3.1). onnxruntime's quantize_dynamic has one scale per batch, which makes a text's outputs depend on the
    other texts. Weights have seven bits: with eight, sums overflow silently on a CPU without VNNI."""
    from onnx import helper, numpy_helper

    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    heads, nodes = _near_outputs(graph), []
    quantized: set[str] = set()
    constants: dict[str, np.ndarray] = {
        _STEP: np.array(1 / 127, np.float32),
        _ZERO: np.array(128, np.uint8),
        _MINIMUM: np.array(1e-30, np.float32),  # scale of a token that is all zeros
        _LAST_AXIS: np.array([-1]),
    }
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in weights or node.output[0] in heads:
            nodes.append(node)
            continue
        x, weight = node.input
        if x not in quantized:
            nodes += _quantization(x)
            quantized.add(x)
        matrix = numpy_helper.to_array(weights[weight])
        scale = np.maximum(np.abs(matrix).max(0), 1e-30) / np.float32(_MAX_WEIGHT)  # (M,)
        constants |= {f"{weight}_int8": np.rint(matrix / scale).astype(np.int8), f"{weight}_scale": scale}
        nodes += _product(node, x, weight)
    used = {name for node in nodes for name in node.input}
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    tensors += [numpy_helper.from_array(array, name) for name, array in constants.items()]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _near_outputs(graph: GraphProto) -> set[str]:
    """Names of the graph's outputs and of the inputs of their nodes: a head is a MatMul and an Add."""
    outputs = {value.name for value in graph.output}
    return outputs | {name for node in graph.node if outputs & set(node.output) for name in node.input}


def _quantization(x: str) -> Iterator[NodeProto]:
    """x (..., D) → the scale of each token (..., 1), and x divided by it in uint8."""
    from onnx import helper

    yield helper.make_node("Abs", [x], [f"{x}_abs"])
    yield helper.make_node("ReduceMax", [f"{x}_abs", _LAST_AXIS], [f"{x}_largest"], keepdims=1)
    yield helper.make_node("Max", [f"{x}_largest", _MINIMUM], [f"{x}_scale"])
    yield helper.make_node("Div", [x, f"{x}_scale"], [f"{x}_unit"])
    yield helper.make_node("QuantizeLinear", [f"{x}_unit", _STEP, _ZERO], [f"{x}_int8"])


def _product(node: NodeProto, x: str, weight: str) -> Iterator[NodeProto]:
    """The int8 multiplication in place of a MatMul node, and the multiplication by each token's scale."""
    from onnx import helper

    operands = [f"{x}_int8", f"{weight}_int8", _STEP, f"{weight}_scale", _ZERO]
    product = f"{node.output[0]}_unit"
    yield helper.make_node("MatMulIntegerToFloat", operands, [product], domain="com.microsoft")
    yield helper.make_node("Mul", [product, f"{x}_scale"], list(node.output))
