"""Real bugs of released runtimes for scripts/known-bugs, each with a model and inputs that show it.

Not here, because the standard does not say what is right: ORT-08, ORT-10 and ORT-24 (Min, ReduceMax and ArgMax of NaN),
ORT-18 and RT-12 (Mod and Div by zero), TR-14 (INT_MIN / -1).
"""

from typing import Dict, NamedTuple

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.helper import make_node as node


THIS_BUILD = "this build"  # in place of a release: the backend of this build of graphsmith


class Bug(NamedTuple):
    name: str
    runtime: str
    bad: str  # a release that has it
    good: str  # one that has it not
    model: ModelProto
    inputs: Dict[str, np.ndarray]
    shown: str = "finding"  # by the bad release; or `refused` or `crashed`


def f32(*shape):
    return np.linspace(-3, 4, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def i64(*values):
    return np.array(values, dtype=np.int64)


def model(opset, nodes, inputs, outputs, constants=None):
    """The model and its inputs. `outputs` are arrays of the right type and shape, by name."""
    code = helper.np_dtype_to_tensor_dtype
    value = lambda name, array: helper.make_tensor_value_info(name, code(array.dtype), array.shape)
    values = lambda arrays: [value(name, array) for name, array in arrays.items()]
    initializers = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(nodes, "bug", values(inputs), values(outputs), initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), inputs


def like(dtype, *shape):
    return np.zeros(shape, dtype=dtype)


def onnxruntime():
    bug = lambda name, bad, good, made, *shown: Bug(name, "onnxruntime", bad, good, *made, *shown)
    # https://github.com/microsoft/onnxruntime/issues/24681
    pool = node("AveragePool", ["x"], ["y"], kernel_shape=[5, 1], auto_pad="SAME_LOWER", count_include_pad=1)
    yield bug("ORT-02", "1.24.4", "1.26.0", model(19, [pool], {"x": f32(1, 1, 6, 2)}, {"y": f32(1, 1, 6, 2)}))
    # https://github.com/microsoft/onnxruntime/issues/16203
    pool = node("AveragePool", ["x"], ["y"], kernel_shape=[7], strides=[3], pads=[3, 3], ceil_mode=1, count_include_pad=1)
    yield bug("ORT-04", "1.20.1", "1.22.1", model(19, [pool], {"x": f32(1, 2, 9)}, {"y": f32(1, 2, 4)}))
    # https://github.com/microsoft/onnxruntime/pull/18136: zeros that are padded become the least number
    nodes = [node("Pad", ["x", "pads"], ["p"]), node("MaxPool", ["p"], ["y"], kernel_shape=[3, 3])]
    pads = {"pads": i64(0, 0, 1, 1, 0, 0, 1, 1)}
    yield bug("ORT-06", "1.20.1", "1.32.0", model(17, nodes, {"x": f32(1, 1, 4, 4) - 5}, {"y": f32(1, 1, 4, 4)}, pads))
    # https://github.com/microsoft/onnxruntime/issues/26288
    reduce = node("ReduceSumSquare", ["x", "axes"], ["y"], noop_with_empty_axes=1)
    yield bug("ORT-12", "1.22.1", "1.24.4", model(18, [reduce], {"x": f32(3, 4)}, {"y": f32(3, 4)}, {"axes": i64()}))
    # https://github.com/microsoft/onnxruntime/issues/32418
    nodes = [node("Transpose", ["w"], ["t"], perm=[0, 1]), node("Gemm", ["x", "t", "b"], ["y"])]
    constants = {"w": f32(4, 5), "b": f32(5)}
    yield bug("ORT-14", "1.28.0", "1.30.0", model(17, nodes, {"x": f32(3, 4)}, {"y": f32(3, 5)}, constants))
    # https://github.com/microsoft/onnxruntime/issues/11994
    yield bug("ORT-16", "1.24.4", "1.26.0", fractions_to_bool())
    # https://github.com/microsoft/onnxruntime/pull/28272
    shift = node("BitShift", ["x", "by"], ["y"], direction="LEFT")
    inputs = {"x": np.array([1, 2, 3], dtype=np.uint32), "by": np.array([32, 33, 1], dtype=np.uint32)}
    yield bug("ORT-20", "1.26.0", "1.28.0", model(17, [shift], inputs, {"y": like(np.uint32, 3)}))
    # The node tests test_reduce_*_empty_set: the reduced axis is kept with the size 0 in place of 1.
    operators = ["ReduceL1", "ReduceL2", "ReduceProd", "ReduceSumSquare"]
    nodes = [node(operator, ["x", "axes"], [operator], keepdims=1) for operator in operators]
    outputs = {operator: f32(2, 1, 4) for operator in operators}
    yield bug("ORT-22", "1.15.0", "1.17.3", model(18, nodes, {"x": f32(2, 0, 4)}, outputs, {"axes": i64(1)}))


def fractions_to_bool():
    """0.3 becomes the integer 0 and then false, -1.5 becomes -1 and then true."""
    nodes = [node("Cast", ["x"], ["i"], to=TensorProto.INT32), node("Cast", ["i"], ["y"], to=TensorProto.BOOL)]
    return model(17, nodes, {"x": np.array([0.3, -0.3, 1.5, -1.5], dtype=np.float32)}, {"y": like(bool, 4)})


def openvino():
    bug = lambda name, bad, good, made, *shown: Bug(name, "openvino", bad, good, *made, *shown)
    yield bug("OV-02", "2023.3.0", "2025.1.0", fractions_to_bool())
    # The sum of nothing is memory that nobody has written; so is the product, which cannot be 1 by chance.
    nodes = [node("ReduceSum", ["x", "axes"], ["sum"], keepdims=0)]
    nodes += [node("ReduceProd", ["x"], ["product"], axes=[1], keepdims=0)]
    outputs = {"sum": f32(2), "product": f32(2)}
    yield bug("OV-04", "2023.3.0", "2025.1.0", model(17, nodes, {"x": f32(2, 0)}, outputs, {"axes": i64(1)}))
    # The node tests test_averagepool_2d_dilations and its like
    pool = node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 2])
    yield bug("OV-12", "2025.1.0", "2026.1.0", model(19, [pool], {"x": f32(1, 1, 4, 4)}, {"y": f32(1, 1, 2, 2)}))
    # The node test test_gather_elements_negative_indices
    gather = node("GatherElements", ["x", "i"], ["y"], axis=0)
    inputs = {"x": f32(3, 3), "i": np.array([[-1, -2, 0], [-2, 0, 0]], dtype=np.int64)}
    yield bug("OV-14", "2025.1.0", "2026.1.0", model(17, [gather], inputs, {"y": f32(2, 3)}))
    # The node test test_isinf_float16
    inputs = {"x": np.array([-1.2, np.nan, np.inf, 2.8, -np.inf, np.inf], dtype=np.float16)}
    yield bug("OV-16", "2023.3.0", "2025.1.0", model(20, [node("IsInf", ["x"], ["y"])], inputs, {"y": like(bool, 6)}))
    # The node test test_bitwise_not_3d
    inputs = {"x": np.arange(24, dtype=np.uint16).reshape(2, 3, 4)}
    inverted = node("BitwiseNot", ["x"], ["y"])
    yield bug("OV-18", "2025.1.0", "2026.1.0", model(18, [inverted], inputs, {"y": like(np.uint16, 2, 3, 4)}))


def tract():
    bug = lambda name, bad, good, made, *shown: Bug(name, "tract", bad, good, *made, *shown)
    # https://github.com/sonos/tract/pull/2109: the reduction is not looked at
    scatter = node("ScatterND", ["x", "i", "u"], ["y"], reduction="add")
    inputs = {"x": f32(5), "i": i64(1, 3, 1).reshape(3, 1), "u": f32(3)}
    yield bug("TR-02", "0.22.1", "0.23.9", model(16, [scatter], inputs, {"y": f32(5)}))
    # https://github.com/sonos/tract/commit/803bdad5a: two slices, none from the start, drawn before the operator
    nodes = [node("Relu", ["x"], ["r"]), node("Slice", ["r", "one", "three"], ["a"])]
    nodes += [node("Slice", ["r", "three", "five"], ["b"]), node("Concat", ["a", "b"], ["y"], axis=0)]
    constants = {"one": i64(1), "three": i64(3), "five": i64(5)}
    yield bug("TR-04", "0.22.1", "0.23.9", model(17, nodes, {"x": f32(6)}, {"y": f32(4)}, constants), "refused")
    # https://github.com/sonos/tract/issues/2108
    nodes = [node("Constant", [], ["shape"], value_ints=[2, 3]), node("Reshape", ["x", "shape"], ["y"])]
    yield bug("TR-06", "0.22.1", "0.23.9", model(17, nodes, {"x": f32(6)}, {"y": f32(2, 3)}), "refused")
    # tract's changelog of 0.23.4
    where = node("Where", ["c", "a", "b"], ["y"])
    inputs = {"a": f32(4, 1), "b": f32(1, 3)}
    yield bug("TR-08", "0.23.0", "0.23.9", model(17, [where], inputs, {"y": f32(4, 3)}, {"c": np.array(True)}), "refused")
    # tract's changelog of 0.23.5: values above 1, by one unit in the last place
    inputs = {"x": np.linspace(-10, 10, 1 << 16, dtype=np.float32)}
    yield bug("TR-10", "0.23.0", "0.23.9", model(17, [node("Tanh", ["x"], ["y"])], inputs, {"y": f32(1 << 16)}))
    # Ties are rounded away from zero.
    quantize = node("QuantizeLinear", ["x", "scale", "zero"], ["y"])
    inputs = {"x": np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], dtype=np.float32)}
    constants = {"scale": np.float32(1), "zero": np.int8(0)}
    yield bug("TR-12", "0.23.5", "0.23.9", model(17, [quantize], inputs, {"y": like(np.int8, 6)}, constants))
    # The node test test_maxpool_2d_dilations and its like
    pool = node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 2])
    yield bug("TR-32", "0.23.5", "0.23.9", model(17, [pool], {"x": f32(1, 1, 4, 4)}, {"y": f32(1, 1, 2, 2)}))
    # The node test test_maxpool_with_argmax_2d_precomputed_strides
    pool = node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2], strides=[2, 2], storage_order=1)
    outputs = {"y": f32(1, 1, 2, 2), "i": like(np.int64, 1, 1, 2, 2)}
    yield bug("TR-34", "0.23.5", "0.23.9", model(17, [pool], {"x": f32(1, 1, 5, 5)}, outputs))


def rten():
    bug = lambda name, made, *shown: Bug(name, "rten", "0.24.0", THIS_BUILD, *made, *shown)
    # https://github.com/robertknight/rten/pull/1362 and 1368
    equations = (
        ("RT-02", "finding", "ijk,ikj->i", [(2, 3, 4), (2, 4, 3)], (2,)),
        ("RT-04", "crashed", "ik,ij->ik", [(2, 3), (2, 4)], (2, 3)),
        ("RT-06", "crashed", "ij,j...->i...", [(2, 3), (3, 4)], (2, 4)),
        ("RT-08", "crashed", "ii,j,i->", [(3, 3), (4,), (3,)], ()),
    )
    for name, shown, equation, shapes, output in equations:
        inputs = {f"x{index}": f32(*shape) for index, shape in enumerate(shapes)}
        einsum = node("Einsum", list(inputs), ["y"], equation=equation)
        yield bug(name, model(17, [einsum], inputs, {"y": like(np.float32, *output)}), shown)
    # https://github.com/robertknight/rten/pull/1390
    inputs = {"x": f32(3, 2), "i": i64(-1, 0).reshape(2, 1)}
    yield bug("RT-10", model(17, [node("GatherND", ["x", "i"], ["y"])], inputs, {"y": f32(2, 2)}), "refused")
    # https://github.com/robertknight/rten/pull/1405: an output of the graph that is also an input of it
    yield bug("RT-14", model(17, [node("Relu", ["x"], ["y"])], {"x": f32(4)}, {"x": f32(4), "y": f32(4)}), "refused")
    # https://github.com/robertknight/rten/pull/1416: one element too many
    pool = node("MaxPool", ["x"], ["y"], kernel_shape=[3], strides=[2], ceil_mode=1)
    yield bug("RT-16", model(17, [pool], {"x": f32(1, 1, 7)}, {"y": f32(1, 1, 3)}))
    # https://github.com/robertknight/rten/pull/1406
    pad = node("Pad", ["x", "pads"], ["y"])
    yield bug("RT-18", model(17, [pad], {"x": f32(6)}, {"y": f32(4)}, {"pads": i64(-1, -1)}), "refused")


def bugs():
    for runtime in (onnxruntime, openvino, tract, rten):
        yield from runtime()
