import numpy as np
import pytest

from amct_lite.errors import EvaluatorError, ModelError, ParameterError
from amct_lite.evaluators import ArrayData
from amct_lite.evaluators.model_run import iterate_scores

TWO_INPUTS = """
<ir_version: 8, opset_import: ["" : 13]>
two (float[N, 3] left, float[N, 3] right) => (float[N, 3] logits)
{
  logits = Sub (left, right)
}
"""

IMAGE = """
<ir_version: 8, opset_import: ["" : 13]>
network (float[N, 3, 4, 4] image) => (float[N, 48] logits)
{
  logits = Flatten (image)
}
"""

INTEGERS = """
<ir_version: 8, opset_import: ["" : 13]>
network (uint8[N, 3] pixels) => (float[N, 3] logits)
{
  logits = Cast <to: int = 1> (pixels)
}
"""

POOLED = """
<ir_version: 8, opset_import: ["" : 13]>
network (float[N, 3, 4, 4] image) => (float[N, 3, 1, 1] scores)
{
  scores = GlobalAveragePool (image)
}
"""


def run(model_file, inputs, batch_size=4, batch_num=99, output=None):
    batches = iterate_scores(
        model_file, None, ArrayData(inputs), batch_size=batch_size, batch_num=batch_num, output=output
    )
    return np.concatenate([batch.scores for batch in batches])


@pytest.mark.parametrize("num_samples", [1, 3, 4, 5, 8, 11])
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_fixed_batch_gives_the_same_scores_as_an_open_one(identity_model, fixed_batch_model, num_samples, batch_size):
    inputs = np.random.default_rng(0).normal(size=(num_samples, 3)).astype(np.float32)
    np.testing.assert_array_equal(run(identity_model, inputs, batch_size), inputs)
    np.testing.assert_array_equal(run(fixed_batch_model, inputs, batch_size), inputs)


def test_only_batch_num_batches_are_run(identity_model, fixed_batch_model):
    inputs = np.zeros((20, 3), np.float32)
    assert len(run(identity_model, inputs, batch_size=3, batch_num=2)) == 6
    assert len(run(fixed_batch_model, inputs, batch_size=3, batch_num=2)) == 8


def test_bytes_and_doubles_are_cast_to_what_the_input_takes(identity_model):
    for dtype in (np.uint8, np.float64, np.int64, np.bool_):
        scores = run(identity_model, np.array([[0, 1, 1]], dtype))
        assert scores.dtype == np.float32
        assert scores.tolist() == [[0, 1, 1]]


def test_integer_input_takes_integers_in_range_only(write_model):
    model_file = write_model(INTEGERS)
    assert run(model_file, np.array([[0, 255, 7]])).tolist() == [[0, 255, 7]]
    for wrong in (np.array([[0, 256, 7]]), np.array([[-1, 0, 0]]), np.array([[0.5, 0, 0]])):
        with pytest.raises(EvaluatorError, match=r"'pixels'.*without changing values"):
            run(model_file, wrong)


def test_shapes_that_do_not_fit_are_both_named(identity_model, fixed_batch_model, write_model):
    with pytest.raises(EvaluatorError, match=r"\(2, 5\).*'scores'.*\(N, 3\)"):
        run(identity_model, np.zeros((2, 5)))
    with pytest.raises(EvaluatorError, match=r"\(4, 5\).*'scores'.*\(4, 3\)"):
        run(fixed_batch_model, np.zeros((2, 5)))
    with pytest.raises(EvaluatorError, match=r"\(2, 4, 4\).*'image'.*\(N, 3, 4, 4\)"):
        run(write_model(IMAGE), np.zeros((2, 4, 4)))


def test_channels_that_come_last_are_recognised(write_model):
    with pytest.raises(EvaluatorError, match=r"moveaxis"):
        run(write_model(IMAGE), np.zeros((2, 4, 4, 3)))


def test_arrays_are_fed_by_name(write_model):
    model_file = write_model(TWO_INPUTS)
    one, two = np.ones((2, 3), np.float32), np.full((2, 3), 2, np.float32)
    assert run(model_file, {"right": two, "left": one}).tolist() == [[-1] * 3] * 2
    with pytest.raises(EvaluatorError, match=r"\['left', 'right'\]"):
        run(model_file, one)
    for wrong in ({"left": one}, {"left": one, "right": two, "third": one}):
        with pytest.raises(EvaluatorError, match=r"\['left', 'right'\]"):
            run(model_file, wrong)


def test_output_is_chosen_by_name_and_is_the_first_otherwise(identity_model):
    inputs = np.zeros((1, 3))
    assert run(identity_model, inputs).tolist() == [[0, 0, 0]]
    assert run(identity_model, inputs, output="probabilities").sum() == pytest.approx(1)
    with pytest.raises(ParameterError, match=r"\['logits', 'probabilities'\].*'missing'"):
        run(identity_model, inputs, output="missing")


def test_spatial_axes_of_one_are_dropped_and_others_refused(write_model):
    assert run(write_model(POOLED), np.ones((2, 3, 4, 4))).shape == (2, 3)
    spatial = POOLED.replace("GlobalAveragePool", "Relu").replace("3, 1, 1", "3, 4, 4")
    with pytest.raises(EvaluatorError, match=r"\(2, 3, 4, 4\).*one score for each"):
        run(write_model(spatial, "spatial"), np.ones((2, 3, 4, 4)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_an_error(identity_model, value):
    with pytest.raises(EvaluatorError, match="NaN or infinite"):
        run(identity_model, np.array([[0, value, 0]]))


def test_weights_file_of_an_onnx_model_is_refused(identity_model):
    with pytest.raises(ModelError, match=r"net\.caffemodel"):
        next(iterate_scores(identity_model, "net.caffemodel", ArrayData(np.zeros((1, 3))), batch_size=1, batch_num=1))
