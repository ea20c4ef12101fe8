"""Packed weights: the numbers of the codebook, folded when the model is loaded."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from amct_lite.codebook.codebook import Codebook
from amct_lite.codebook.level_type import LevelType
from amct_lite.codebook.scale_format import scale_table
from amct_lite.errors import ExportError
from amct_lite.export.editor import GraphEditor
from amct_lite.export.packed_weight import dense_weight, int8_weight, packed_weight
from amct_lite.graph.model import load_model
from amct_lite.graph.serializing import to_bytes
from amct_lite.quantize.weight_rows import weight_layout

HEADER = '<ir_version: 8, opset_import: ["": 13]> '
# Operators that only decoding uses in these models.
DECODING = {"Gather", "GatherElements", "Cast", "ConvInteger", "BitShift", "Expand", "Mul", "Add", "Reshape", "Slice"}

# The operator, the input's shape, the weight's shape.
LAYERS = {
    "conv": ("Conv (x, w)", (2, 6, 5, 5), (8, 6, 3, 3)),
    "conv_odd": ("Conv (x, w)", (2, 3, 5, 5), (7, 3, 3, 3)),
    "conv_depthwise": ("Conv<group=9> (x, w)", (2, 9, 5, 5), (9, 1, 3, 3)),
    "conv_grouped": ("Conv<group=2> (x, w)", (2, 6, 5, 5), (8, 3, 3, 3)),
    "conv_transpose": ("ConvTranspose (x, w)", (2, 6, 5, 5), (6, 7, 3, 3)),
    "conv_transpose_grouped": ("ConvTranspose<group=3> (x, w)", (2, 6, 5, 5), (6, 4, 3, 3)),
    "conv_transpose_depthwise": ("ConvTranspose<group=6> (x, w)", (2, 6, 5, 5), (6, 1, 3, 3)),
    "gemm": ("Gemm (x, w)", (4, 24), (24, 10)),
    "gemm_trans_b": ("Gemm<transB=1> (x, w)", (4, 24), (10, 24)),
    "matmul": ("MatMul (x, w)", (4, 23), (23, 10)),
    "matmul_rank_3": ("MatMul (x, w)", (2, 4, 24), (2, 24, 10)),
}


@pytest.fixture
def load(write_network):
    def load_layer(name):
        operator, shape, weight_shape = LAYERS[name]
        sizes = ",".join(map(str, shape))
        weight = np.random.default_rng(1).normal(size=weight_shape).astype(np.float32)
        return load_model(write_network(f"g (float[{sizes}] x) => (y) {{ [layer] y = {operator} }}", {"w": weight}))

    return load_layer


def codebook_of(
    layout, *, num_levels=16, num_tables=1, vector_size=1, level_type=LevelType.FLOAT32, scales="rows", seed=0
):
    rng = np.random.default_rng(seed)
    code_rows = -(-layout.rows // vector_size)
    rows_per_table = -(-code_rows // num_tables)
    shape = (-(-code_rows // rows_per_table), num_levels, vector_size)
    tables = rng.normal(size=shape).astype(level_type.value if level_type is not LevelType.INT8 else "float32")
    if level_type is LevelType.INT8:
        tables = rng.integers(-128, 128, shape)
    codes = rng.integers(0, num_levels, (code_rows, layout.columns)).astype(np.uint8)
    of_scales = {
        "rows": rng.uniform(0.5, 2, layout.rows),
        "bytes": scale_table()[rng.integers(1, 256, layout.rows)] * 2.0**-7,
        "half": rng.uniform(0.5, 2, layout.rows).astype(np.float16),
        "one": np.array([0.3]),
        "unit": np.ones(1),
    }
    return Codebook(
        tables.astype(np.float32),
        codes,
        of_scales[scales].astype(np.float32),
        layout.rows,
        rows_per_table,
        level_type,
    )


def packed(model, make=packed_weight, **options):
    """The model's graph with a packed weight, and what the weight has to be."""
    (layer,) = model.layers
    layout = weight_layout(layer)
    book = codebook_of(layout, **options)
    editor = GraphEditor(model)
    node = editor.node_of(layer)
    node.replace_input_with(layer.weight_index, make(editor, node, book, layout, "w.packed"))
    editor.finish()
    return editor.ir, layout.from_rows(book.decode())


def session_of(graph, level, optimized_file=None):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{level}")
    if optimized_file is not None:
        options.optimized_model_filepath = str(optimized_file)
    return onnxruntime.InferenceSession(to_bytes(graph), options, providers=["CPUExecutionProvider"])


def assert_folds_to(graph, weight, tmp_path):
    """The weight decodes bit by bit to what it has to be, unoptimised as folded, and nothing is left to decode."""
    node = next(node for node in graph.graph if node.name == "layer")
    bare = graph.clone()
    bare.graph.outputs.append(next(n for n in bare.graph if n.name == "layer").inputs[1])
    name = node.inputs[1].name
    x = np.random.default_rng(2).normal(size=tuple(graph.graph.inputs[0].shape.numpy())).astype(np.float32)
    decoded = session_of(bare, "DISABLE_ALL").run([name], {"x": x})[0]
    assert decoded.shape == weight.shape
    assert np.array_equal(decoded, weight)

    # Beyond EXTENDED ONNX Runtime stores weights in another order; the numbers are seen before that.
    session_of(graph, "ENABLE_EXTENDED", tmp_path / "extended.onnx")
    optimized = ir.load(tmp_path / "extended.onnx").graph
    (layer,) = [node for node in optimized if node.op_type == node_type(graph)]
    folded = layer.inputs[1].const_value.numpy()
    if layer.attributes.get_int("transB", 0) != node.attributes.get_int("transB", 0):
        folded = folded.T  # ONNX Runtime took a Transpose into its Gemm
    assert np.array_equal(folded, weight)

    default = session_of(graph, "ENABLE_ALL", tmp_path / "all.onnx")
    assert not {node.op_type for node in ir.load(tmp_path / "all.onnx").graph} & DECODING
    y, unoptimized = default.run(None, {"x": x})[0], session_of(graph, "DISABLE_ALL").run(None, {"x": x})[0]
    np.testing.assert_allclose(y, unoptimized, rtol=1e-4, atol=1e-4)


def node_type(graph):
    return next(node.op_type for node in graph.graph if node.name == "layer")


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("num_levels", [2, 4, 5, 8, 16, 27, 64, 100, 256])
def test_every_width_in_every_layer(name, num_levels, load, tmp_path):
    assert_folds_to(*packed(load(name), num_levels=num_levels), tmp_path)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("num_tables", [3, 100])
@pytest.mark.parametrize("num_levels", [6, 16])
def test_several_tables(name, num_tables, num_levels, load, tmp_path):
    assert_folds_to(*packed(load(name), num_tables=num_tables, num_levels=num_levels), tmp_path)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("vector_size", [2, 4])
@pytest.mark.parametrize("scales", ["rows", "bytes", "half", "one"])
def test_vectors(name, vector_size, scales, load, tmp_path):
    for num_tables, num_levels in ((1, 100), (2, 16)):
        options = {"num_tables": num_tables, "num_levels": num_levels, "scales": scales}
        assert_folds_to(*packed(load(name), vector_size=vector_size, **options), tmp_path)


@pytest.mark.parametrize("level_type", LevelType)
@pytest.mark.parametrize("scales", ["rows", "bytes", "half", "one", "unit"])
@pytest.mark.parametrize("name", ["conv_odd", "conv_transpose_grouped", "gemm"])
def test_every_type_of_levels_and_scales(level_type, scales, name, load, tmp_path):
    assert_folds_to(*packed(load(name), level_type=level_type, scales=scales), tmp_path)


@pytest.mark.parametrize("name", LAYERS)
def test_dense_weights_are_initializers(name, load, tmp_path):
    graph, weight = packed(load(name), dense_weight)
    assert len(list(graph.graph)) == 1
    assert_folds_to(graph, weight, tmp_path)


def test_only_what_is_needed_is_emitted(load):
    operators = [node.op_type for node in packed(load("conv"))[0].graph]
    assert operators == ["Mul", "Reshape", "BitShift", "ConvInteger", "GatherElements", "Reshape", "Conv"]
    unscaled = [node.op_type for node in packed(load("conv"), scales="unit")[0].graph]
    assert unscaled == ["Expand", "BitShift", "ConvInteger", "GatherElements", "Reshape", "Conv"]
    keeping = [node.op_type for node in packed(load("conv"), vector_size=2)[0].graph]
    moving = [node.op_type for node in packed(load("gemm"), vector_size=2)[0].graph]
    assert ("Transpose" in keeping, "Transpose" in moving) == (False, True)


@pytest.mark.parametrize("num_levels", [2, 4, 8, 16, 32, 64, 128])
def test_scales_of_rows_cost_no_operation_on_the_whole_weight(num_levels, load):
    graph, weight = packed(load("conv"), num_levels=num_levels, num_tables=2)
    (scaling,) = [node for node in graph.graph if node.op_type == "Mul"]
    graph.graph.outputs.append(scaling.outputs[0])
    x = np.zeros((2, 6, 5, 5), np.float32)
    (tables,) = session_of(graph, "DISABLE_ALL").run([scaling.outputs[0].name], {"x": x})
    assert tables.size == len(weight) * num_levels


def test_layers_share_what_unpacks(write_network):
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=(64, 64)).astype(np.float32) for name in ("w", "v")}
    text = "g (float[N,64] x) => (y) { [one] t = MatMul (x, w) [two] y = MatMul (t, v) }"
    model = load_model(write_network(text, weights))
    sizes = []
    for num_packed in (1, 2):
        editor = GraphEditor(model)
        for layer in reversed(model.layers[:num_packed]):  # the later layer first: what is shared must still precede
            layout, node = weight_layout(layer), editor.node_of(layer)
            book = codebook_of(layout, num_levels=8)
            node.replace_input_with(1, packed_weight(editor, node, book, layout, layer.weight))
        editor.finish()
        assert [name.startswith("packed.weights") for name in editor.graph.initializers].count(True) == 1
        session_of(editor.ir, "DISABLE_ALL").run(None, {"x": np.ones((2, 64), np.float32)})
        sizes.append(len(to_bytes(editor.ir)))
    # A float layer gives way to a packed one: codes, levels and scales, and less than 1 KB of graph.
    assert sizes[1] - sizes[0] < book.stored_bytes + 1000 - 64 * 64 * 4


def test_tables_of_alike_layers_are_made_in_one_go(write_network):
    """Each weight still decodes to its own codebook, whatever else the network has."""
    channels = {"a": (3, 16), "b": (16, 24), "c": (24, 8), "d": (8, 64), "e": (64, 40)}
    options = {
        "a": {"scales": "bytes", "num_tables": 3},
        "b": {"scales": "bytes"},
        "c": {"scales": "bytes"},
        "d": {"scales": "half", "num_levels": 32},
        "e": {"scales": "rows", "level_type": LevelType.FLOAT32},
    }
    weights = {name: np.zeros((last, first, 1, 1), np.float32) for name, (first, last) in channels.items()}
    text = "g (float[1,3,2,2] x) => (y) { [a] p = Conv (x, a) [b] q = Conv (p, b) [c] r = Conv (q, c) "
    model = load_model(write_network(text + "[d] s = Conv (r, d) [e] y = Conv (s, e) }", weights))
    editor, expected = GraphEditor(model), {}
    for layer in reversed(model.layers):
        layout, node = weight_layout(layer), editor.node_of(layer)
        book = codebook_of(layout, **{"level_type": LevelType.FLOAT16, **options[layer.name]})
        node.replace_input_with(1, packed_weight(editor, node, book, layout, layer.weight))
        expected[node.inputs[1]] = layout.from_rows(book.decode())
    editor.finish()
    operators = [node.op_type for node in editor.graph]
    assert (operators.count("Split"), operators.count("GatherElements")) == (1, 5)

    editor.graph.outputs.extend(expected)
    names = [value.name for value in expected]
    decoded = session_of(editor.ir, "DISABLE_ALL").run(names, {"x": np.ones((1, 3, 2, 2), np.float32)})
    for weight, found in zip(expected.values(), decoded, strict=True):
        assert np.array_equal(found, weight)


def test_a_codebook_of_another_layer_is_refused(load):
    model = load("gemm")
    layout = weight_layout(model.layers[0])
    other = codebook_of(weight_layout(load("conv").layers[0]))
    editor = GraphEditor(model)
    for make in (packed_weight, dense_weight):
        with pytest.raises(ExportError, match=r"layer'.*8 rows and 54 columns"):
            make(editor, editor.node_of(model.layers[0]), other, layout, "w.packed")


# int8


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "conv_transpose_grouped"])
@pytest.mark.parametrize("num_levels", [3, 16, 256])
@pytest.mark.parametrize("scales", ["rows", "bytes", "half", "one"])
def test_int8_weights_decode_bit_by_bit(name, num_levels, scales, load):
    options = {"num_levels": num_levels, "scales": scales, "level_type": LevelType.INT8}
    assert_decodes_to_int8(load(name), num_levels, options)


@pytest.mark.parametrize("name", ["conv", "conv_odd", "gemm"])
@pytest.mark.parametrize("num_levels", [8, 16])
def test_several_tables_of_int8_levels_decode_bit_by_bit(name, num_levels, load):
    options = {"num_levels": num_levels, "num_tables": 3, "level_type": LevelType.INT8}
    assert_decodes_to_int8(load(name), num_levels, options)


def assert_decodes_to_int8(model, num_levels, options):
    graph, weight = packed(model, int8_weight, **options)
    node = next(node for node in graph.graph if node.name == "layer")
    assert node.inputs[1].producer().op_type == "DequantizeLinear"
    assert (num_levels == 256) == node.inputs[1].producer().inputs[0].is_initializer()
    graph.graph.outputs.append(node.inputs[1])
    x = np.zeros(tuple(graph.graph.inputs[0].shape.numpy()), np.float32)
    decoded = session_of(graph, "DISABLE_ALL").run([node.inputs[1].name], {"x": x})[0]
    assert np.array_equal(decoded, weight)


def test_int8_refuses_what_dequantize_linear_cannot_do(load):
    model = load("conv_transpose_grouped")
    with pytest.raises(ExportError, match=r"'layer'.*run along none"):
        packed(model, int8_weight, level_type=LevelType.INT8)
    packed(model, int8_weight, level_type=LevelType.INT8, scales="one")
    with pytest.raises(ExportError, match=r"'layer'.*float32 are no int8"):
        packed(model, int8_weight)


@pytest.mark.parametrize("vector_size", [1, 2])
def test_packed_int8_weights_become_integer_kernels(vector_size, write_network, tmp_path):
    text = """g (float[N,6,9,9] x) => (y) <float s = {0.05}, uint8 z = {120}, float s2 = {2.0}> {
        q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) [layer] t = Conv (d, w)
        q2 = QuantizeLinear (t, s2, z) y = DequantizeLinear (q2, s2, z) }"""
    weight = np.random.default_rng(1).normal(size=(8, 6, 3, 3)).astype(np.float32)
    model = load_model(write_network(text, {"w": weight}))
    graph, weight = packed(model, int8_weight, level_type=LevelType.INT8, vector_size=vector_size, num_levels=13)
    session = session_of(graph, "ENABLE_ALL", tmp_path / "all.onnx")
    optimized = list(ir.load(tmp_path / "all.onnx").graph)
    (layer,) = [node for node in optimized if node.op_type == "QLinearConv"]
    assert not {node.op_type for node in optimized} & DECODING
    assert layer.inputs[3].const_value.dtype == ir.DataType.INT8
    x = np.random.default_rng(2).normal(size=(2, 6, 9, 9)).astype(np.float32)
    y, unoptimized = session.run(None, {"x": x})[0], session_of(graph, "DISABLE_ALL").run(None, {"x": x})[0]
    assert np.abs(y - unoptimized).max() <= 2.0 * 1.001  # a value on a rounding bound may move by one step
    assert np.mean(y != unoptimized) < 0.01
