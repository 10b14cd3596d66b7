"""Products in int8 against the same arithmetic in numpy."""

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
    """x → relu(x FIRST), whose head is ... HEAD + BIAS; and x SECOND."""
    weights = {"first": FIRST, "second": SECOND, "head": HEAD, "bias": BIAS}
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("Relu", ["a"], ["hidden"]),
        helper.make_node("MatMul", ["x", "second"], ["b"]),
        helper.make_node("Identity", ["b"], ["b2"]),
        helper.make_node("Identity", ["b2"], ["other"]),
        helper.make_node("MatMul", ["hidden", "head"], ["c"]),
        helper.make_node("Add", ["c", "bias"], ["logits"]),
        helper.make_node("Identity", ["hidden"], ["kept"]),
    ]
    axes = ["batch", "length"]
    outputs = {"logits": 3, "other": 5, "kept": 6}
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
    return lambda x: dict(zip(("logits", "other", "kept"), session.run(None, {"x": x.astype(np.float32)})))


def rounded(x, weight):
    """The product of both in whole numbers of at most 127 for each token and 63 for each column."""
    x, weight = np.float32(x), np.float32(weight)
    rows, columns = np.abs(x).max(-1, keepdims=True), np.abs(weight).max(0)
    whole = np.rint(x / np.maximum(rows, 1e-30) * 127) @ np.rint(weight / columns * 63)
    return whole * rows * columns / (127 * 63)


def test_products_are_those_of_whole_numbers_and_the_head_is_exact(run):
    x = np.random.default_rng(9).normal(size=(2, 4, 8)) * np.array([1, 100, 0.01, 0])[:, None]
    found = run(x)
    hidden = np.maximum(rounded(x, FIRST), 0)
    np.testing.assert_allclose(found["kept"], hidden, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found["other"], rounded(x, SECOND), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found["logits"], found["kept"] @ np.float32(HEAD) + BIAS, rtol=1e-5)
    assert np.abs(hidden - np.maximum(x @ FIRST, 0)).max() > 1e-3, "it is not in float32"


def test_no_sum_saturates_whatever_the_cpu():
    model = graph()
    for tensor in model.graph.initializer:
        if tensor.name == "first":
            tensor.CopyFrom(numpy_helper.from_array(np.full((8, 6), 3, np.float32), "first"))
    quantize(model)
    x = np.full((1, 1, 8), 5, np.float32)  # every product is as large as it can be
    _, _, kept = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(kept, 8 * 3 * 5, rtol=1e-5)


def test_a_token_is_not_changed_by_the_others(run):
    x = np.random.default_rng(9).normal(size=(3, 4, 8))
    alone = run(x[:1, :2])
    x[1:] *= 1000
    for name, together in run(x).items():
        np.testing.assert_array_equal(together[:1, :2], alone[name])


def test_what_is_rounded_is_kept_once_and_small():
    model = graph()
    quantize(model)
    kept = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert "first" not in kept and "second" not in kept
    assert kept["head"].dtype == np.float32
    assert kept["first_int8"].dtype == np.int8 and np.abs(kept["first_int8"]).max(0).tolist() == [63] * 6
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) == 1, "x is rounded once"
