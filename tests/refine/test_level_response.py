"""How layers respond to the levels of their inputs: the quadratic form is the error that the layer makes."""

import numpy as np
import pytest

from amct_lite.export.editor import GraphEditor
from amct_lite.graph.model import load_model
from amct_lite.graph.runtime import create_session
from amct_lite.quantize.weight_rows import to_rows
from amct_lite.refine.layer_inputs import LayerInputs
from amct_lite.refine.level_response import GAIN_WEIGHT, layer_response
from amct_lite.types import Grid
from amct_lite.uniform.grid import quantize

CHANNELS = 40
GRID = Grid(0.05, -128)


@pytest.fixture
def depthwise(write_network):
    """A network of one depthwise layer whose every channel is on levels of its own."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(CHANNELS, 1, 2, 2)).astype(np.float32)
    text = f"g (float[N,{CHANNELS},3,3] x) => (y) {{ [conv] y = Conv <group = {CHANNELS}> (x, w) }}"
    x = rng.random(size=(6, CHANNELS, 3, 3)) * np.linspace(0.2, 10.0, CHANNELS)[:, None, None]
    return load_model(write_network(text, {"w": weight})), x.astype(np.float32)


@pytest.mark.parametrize("takes_bias", [False, True])
def test_every_channel_of_a_depthwise_layer_has_its_say(depthwise, takes_bias):
    model, x = depthwise
    (layer,) = model.layers
    inputs = LayerInputs.of_node(layer, GraphEditor(model).node_of(layer))
    rows = to_rows(model.weight(layer.weight), layer)
    found = layer_response(inputs, rows, GRID, [(x[:3], x[:3]), (x[3:], x[3:])], takes_bias=takes_bias, seed=0)
    table = np.round(np.arange(256) / 20.0) * 20.0
    quantized = (table[quantize(x, GRID).astype(np.intp) + 128] * GRID.scale).astype(np.float32)
    session = create_session(model.ir)
    # About each channel's mean, where a bias takes care of that.
    wanted, given = (session.run(None, {"x": values})[0].astype(np.float64) for values in (x, quantized))
    if takes_bias:
        wanted, given = (values - values.mean(axis=(0, 2, 3), keepdims=True) for values in (wanted, given))
    power = np.sum(np.square(wanted))
    gain = np.sum(given * wanted) / power
    error = np.sum(np.square(given - wanted)) / power + GAIN_WEIGHT * (1.0 - gain) ** 2
    form = table @ found.quadratic @ table - 2.0 * found.linear @ table + 1.0 + GAIN_WEIGHT
    assert np.isclose(form, error, rtol=1e-4)
