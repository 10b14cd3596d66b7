"""int8 matrix multiplications against the same arithmetic in numpy."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from multitask.export.int8 import quantize

FIRST, SECOND, HEAD = (
    np.random.default_rng(i).normal(size=s) for i, s in enumerate([(8, 6), (8, 5), (6, 3)])
)
BIAS = np.array([0.5, -1, 2])


def graph():
    """x → hidden = relu(x FIRST), logits = hidden HEAD + BIAS, and x SECOND."""
    weights = {"first": FIRST, "second": SECOND, "head": HEAD, "bias": BIAS}
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("Relu", ["a"], ["hidden"]),
        helper.make_node("MatMul", ["x", "second"], ["b"]),
        helper.make_node("Identity", ["b"], ["b2"]),
        helper.make_node("Identity", ["b2"], ["other"]),
        helper.make_node("MatMul", ["hidden", "head"], ["c"]),
        helper.make_node("Add", ["c", "bias"], ["logits"]),
        helper.make_node("Identity", ["hidden"], ["h"]),
    ]
    axes = ["batch", "length"]
    outputs = {"logits": 3, "other": 5, "h": 6}
    made = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [*axes, 8])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [*axes, size]) for n, size in outputs.items()],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture(scope="module")
def run():
    model = graph()
    quantize(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return lambda x: dict(zip(("logits", "other", "h"), session.run(None, {"x": x.astype(np.float32)})))


def rounded(x, weight):
    """The product of both, rounded to integers up to 127 per token and 63 per column."""
    x, weight = np.float32(x), np.float32(weight)
    rows, columns = np.abs(x).max(-1, keepdims=True), np.abs(weight).max(0)
    whole = np.rint(x / np.maximum(rows, 1e-30) * 127) @ np.rint(weight / columns * 63)
    return whole * rows * columns / (127 * 63)


def test_products_are_those_of_rounded_numbers_and_the_head_is_float32(run):
    x = np.random.default_rng(9).normal(size=(2, 4, 8)) * np.array([1, 100, 0.01, 0])[:, None]
    outputs = run(x)
    hidden = np.maximum(rounded(x, FIRST), 0)
    np.testing.assert_allclose(outputs["h"], hidden, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(outputs["other"], rounded(x, SECOND), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(outputs["logits"], outputs["h"] @ np.float32(HEAD) + BIAS, rtol=1e-5)
    assert np.abs(hidden - np.maximum(x @ FIRST, 0)).max() > 1e-3, "the result differs from float32"


def test_no_sum_overflows_on_any_cpu():
    model = graph()
    for tensor in model.graph.initializer:
        if tensor.name == "first":
            tensor.CopyFrom(numpy_helper.from_array(np.full((8, 6), 3, np.float32), "first"))
    quantize(model)
    x = np.full((1, 1, 8), 5, np.float32)  # every product has the largest possible value
    _, _, hidden = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(hidden, 8 * 3 * 5, rtol=1e-5)


def test_a_token_does_not_depend_on_the_others(run):
    x = np.random.default_rng(9).normal(size=(3, 4, 8))
    alone = run(x[:1, :2])
    x[1:] *= 1000
    for name, together in run(x).items():
        np.testing.assert_array_equal(together[:1, :2], alone[name])


def test_quantized_weights_and_activations_are_stored_once():
    model = graph()
    quantize(model)
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert "first" not in tensors and "second" not in tensors
    assert tensors["head"].dtype == np.float32
    assert (first := tensors["first_int8"]).dtype == np.int8 and np.abs(first).max(0).tolist() == [63] * 6
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) == 1, "x is quantized once"
