"""Shape, statistics and recurrent layers: random parameters, with real Caffe as the oracle."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from amct_lite.caffe.reading import read_network
from amct_lite.caffe.translate import translate
from amct_lite.graph.runtime import create_session

VARIANTS = 40

oracle = settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@dataclass(frozen=True)
class Variant:
    """One layer: its type, parameters as prototxt, input shapes, how many tops."""

    type: str
    params: str
    shapes: tuple[tuple[int, ...], ...]
    tops: int = 1
    weights: tuple[tuple[int, ...], ...] = ()
    # Whole numbers, for layers where equal values matter.
    levels: int | None = None
    special: dict[int, np.ndarray] = field(default_factory=dict)

    def prototxt(self, prefix=""):
        inputs = [f"{prefix}x{i}" for i in range(len(self.shapes))]
        text = ""
        for name, shape in zip(inputs, self.shapes, strict=True):
            dims = " ".join(f"dim: {size}" for size in shape)
            text += f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}\n'
        ends = "".join(f' bottom: "{name}"' for name in inputs)
        ends += "".join(f' top: "{prefix}y{i}"' for i in range(self.tops))
        return text + f'layer {{ name: "{prefix}layer" type: "{self.type}"{ends} {self.params} }}\n'

    def inputs(self, seed):
        rng = np.random.default_rng(seed)
        arrays = {}
        for i, shape in enumerate(self.shapes):
            array = rng.normal(0.3, 2, shape) if self.levels is None else rng.integers(0, self.levels, shape)
            arrays[f"x{i}"] = self.special.get(i, array).astype(np.float32)
        return arrays

    def blobs(self, seed):
        rng = np.random.default_rng(seed)
        return tuple(rng.normal(0, 0.5, shape).astype(np.float32) for shape in self.weights)


def read(prototxt, blobs, folder):
    """The network of one variant, whose one layer has these weights."""
    file = folder / "variant.prototxt"
    file.write_text(prototxt)
    network = read_network(file)
    return replace(network, layers=tuple(replace(layer, blobs=blobs) for layer in network.layers))


def run(network, inputs, free_batch):
    model = translate(network, free_batch=free_batch)
    session = create_session(model)
    names = [output.name for output in session.get_outputs()]
    results = dict(zip(names, session.run(None, inputs), strict=True))
    for value in model.graph.outputs:
        declared, got = tuple(value.shape), results[value.name].shape
        assert len(declared) == len(got)
        assert all(size == real for size, real in zip(declared, got, strict=True) if isinstance(size, int))
    return results


def agree(variants, real_caffe, folder):
    prototxt = folder / "net.prototxt"
    prototxt.write_text("".join(variant.prototxt(f"v{i}_") for i, variant in enumerate(variants)))
    inputs, params = {}, {}
    for i, variant in enumerate(variants):
        inputs |= {f"v{i}_{name}": array for name, array in variant.inputs(i).items()}
        params |= {(f"v{i}_layer", j): blob for j, blob in enumerate(variant.blobs(i))}
    expected = real_caffe(prototxt, inputs, params=params).blobs
    for i, variant in enumerate(variants):
        for free_batch in (True, False):
            got = run(read(variant.prototxt(), variant.blobs(i), folder), variant.inputs(i), free_batch)
            for j in range(variant.tops):
                reference = expected[f"v{i}_y{j}"]
                assert got[f"y{j}"].shape == reference.shape, variant
                # A blob of a few small numbers has no range to measure by.
                span = max(float(np.ptp(np.append(reference, 0))), 0.1)
                np.testing.assert_allclose(got[f"y{j}"], reference, rtol=0, atol=1e-5 * span, err_msg=str(variant))


def shapes(lowest=1, highest=5, size=5):
    return st.lists(st.integers(1, size), min_size=lowest, max_size=highest).map(tuple)


@st.composite
def flatten(draw):
    shape = draw(shapes())
    start = draw(st.integers(0, len(shape) - 1))
    end = draw(st.integers(start, len(shape) - 1))
    start, end = (axis - len(shape) * draw(st.booleans()) for axis in (start, end))
    return Variant("Flatten", f"flatten_param {{ axis: {start} end_axis: {end} }}", (shape,))


@st.composite
def reshaped(draw):
    shape = draw(shapes(2))
    start = draw(st.integers(0, len(shape)))
    count = draw(st.integers(0, len(shape) - start))
    kept, rest = [], list(shape[start : start + count])
    while rest and draw(st.booleans()):
        kept.append(0 if draw(st.booleans()) else rest[0])
        rest.pop(0)
    inferred = int(np.prod(rest))
    factors = [2] if inferred % 2 == 0 and draw(st.booleans()) else []
    dims = [*kept, *factors, -1 if draw(st.booleans()) else inferred // int(np.prod(factors))]
    dims += [1] * draw(st.integers(0, 1))
    axis = start if draw(st.booleans()) else start - len(shape) - 1
    num_axes = -1 if start + count == len(shape) else count
    text = " ".join(f"dim: {dim}" for dim in dims)
    param = f"reshape_param {{ shape {{ {text} }} axis: {axis} num_axes: {num_axes} }}"
    return Variant("Reshape", param, (shape,))


@st.composite
def permuted(draw):
    shape = draw(shapes(4, 4))
    order = draw(st.permutations(range(4)))[: draw(st.integers(1, 4))]
    text = " ".join(f"order: {axis}" for axis in order)
    return Variant("Permute", f"permute_param {{ {text} }}", (shape,))


@st.composite
def cropped(draw):
    small = draw(shapes(3, 4))
    axis = draw(st.integers(0, len(small) - 1))
    offsets = [draw(st.integers(0, 3)) for _ in small[axis:]]
    if draw(st.booleans()):
        offsets = offsets[:1] if draw(st.booleans()) else []
    full = offsets * len(small[axis:]) if len(offsets) == 1 else offsets or [0] * len(small[axis:])
    more = [draw(st.integers(0, 2)) for _ in full]
    big = (*small[:axis], *(size + a + b for size, a, b in zip(small[axis:], full, more, strict=True)))
    text = " ".join(f"offset: {offset}" for offset in offsets)
    axis -= len(small) * draw(st.booleans())
    return Variant("Crop", f"crop_param {{ axis: {axis} {text} }}", (big, small))


@st.composite
def tiled(draw):
    shape = draw(shapes())
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    return Variant("Tile", f"tile_param {{ axis: {axis} tiles: {draw(st.integers(1, 4))} }}", (shape,))


@st.composite
def reindexed(draw):
    shape = draw(shapes(2, 4))
    listed = draw(st.lists(st.integers(0, shape[0] - 1), min_size=1, max_size=6))
    return Variant("BatchReindex", "", (shape, (len(listed),)), special={1: np.array(listed)})


@st.composite
def softmax(draw):
    shape = draw(shapes())
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    return Variant("Softmax", f"softmax_param {{ axis: {axis} }}", (shape,))


@st.composite
def lrn(draw):
    region = draw(st.sampled_from(["ACROSS_CHANNELS", "WITHIN_CHANNEL"]))
    size, alpha = draw(st.sampled_from([1, 3, 5])), draw(st.floats(0.001, 2))
    param = f"norm_region: {region} local_size: {size} alpha: {alpha} beta: {draw(st.floats(0.2, 1.5))}"
    param += f" k: {draw(st.floats(0.5, 3))}"
    shape = (*draw(shapes(2, 2)), *draw(st.tuples(st.integers(3, 7), st.integers(3, 7))))
    return Variant("LRN", f"lrn_param {{ {param} }}", (shape,))


@st.composite
def mvn(draw):
    shape = (*draw(shapes(2, 2)), *draw(st.tuples(st.integers(2, 5), st.integers(2, 5))))[: draw(st.integers(2, 4))]
    variance, across = (str(draw(st.booleans())).lower() for _ in range(2))
    eps = draw(st.sampled_from([1e-9, 1e-3]))
    return Variant(
        "MVN", f"mvn_param {{ normalize_variance: {variance} across_channels: {across} eps: {eps} }}", (shape,)
    )


@st.composite
def reduction(draw):
    shape = draw(shapes())
    operation = draw(st.sampled_from(["SUM", "ASUM", "SUMSQ", "MEAN"]))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    coeff = draw(st.sampled_from([1.0, -0.5, 3.0]))
    return Variant("Reduction", f"reduction_param {{ operation: {operation} axis: {axis} coeff: {coeff} }}", (shape,))


@st.composite
def arg_max(draw):
    shape = draw(shapes(2, 4))
    param, size = "", int(np.prod(shape[1:]))
    if draw(st.booleans()):
        axis = draw(st.integers(0, len(shape) - 1))
        param, size = f"axis: {axis - len(shape) * draw(st.booleans())} ", shape[axis]
    param += f"top_k: {draw(st.integers(1, size))} out_max_val: {str(draw(st.booleans())).lower()}"
    return Variant("ArgMax", f"argmax_param {{ {param} }}", (shape,), levels=draw(st.sampled_from([None, 4])))


@st.composite
def recurrent(draw):
    kind = draw(st.sampled_from(["LSTM", "RNN"]))
    steps, batch, size = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    features, static = draw(shapes(1, 2, 3)), draw(st.booleans())
    exposed = draw(st.booleans())
    rows = size * (4 if kind == "LSTM" else 1)
    weights = [(rows, int(np.prod(features))), (rows,), *([(rows, 6)] if static else []), (rows, size)]
    weights += [] if kind == "LSTM" else [(size, size), (size,)]
    states = (2 if kind == "LSTM" else 1) * exposed
    cont = draw(st.lists(st.sampled_from([0, 1, 1]), min_size=steps * batch, max_size=steps * batch))
    return Variant(
        kind,
        f"recurrent_param {{ num_output: {size} expose_hidden: {str(exposed).lower()} }}",
        ((steps, batch, *features), (steps, batch), *([(batch, 2, 3)] * static), *([(1, batch, size)] * states)),
        tops=1 + states,
        weights=tuple(weights),
        special={1: np.array(cont).reshape(steps, batch)},
    )


FAMILIES = {
    "shape": st.one_of(flatten(), reshaped(), permuted(), cropped(), tiled(), reindexed()),
    "statistics": st.one_of(softmax(), lrn(), mvn(), reduction(), arg_max()),
    "recurrent": recurrent(),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_with_any_parameters_gives_real_caffes_numbers(family, real_caffe, tmp_path):
    @oracle
    @given(st.lists(FAMILIES[family], min_size=VARIANTS, max_size=VARIANTS))
    def check(variants):
        agree(variants, real_caffe, tmp_path)

    check()
