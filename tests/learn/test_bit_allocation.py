"""Bits for each layer: within the average, by either search, ready for a learner."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'train'")

from amct_lite.errors import ParameterError  # noqa: E402
from amct_lite.learn import ArrayBatches, N2UQLearner, UniformLearner, allocate_bits  # noqa: E402
from amct_lite.learn.bit_errors import units_of_bits  # noqa: E402
from amct_lite.learn.tuning import tune_layers  # noqa: E402
from amct_lite.samples.digits.data import MODEL_FILE, load_split  # noqa: E402

SPLIT = load_split()
TRAIN = ArrayBatches(SPLIT.train.images, SPLIT.train.labels, 64)
VALIDATION = [(SPLIT.held_out.images, SPLIT.held_out.labels)]


def make(bits):
    return UniformLearner(MODEL_FILE, weight_bits=bits, quantize_all_layers=True)


def average(bits, learner):
    sizes = {layer.name: layer.num_weights for layer in learner.layers}
    return sum(bits[name] * size for name, size in sizes.items()) / sum(sizes.values())


@pytest.mark.parametrize("strategy", ["frontier", "ddpg"])
def test_bits_stay_within_the_average_and_the_best_is_returned(strategy):
    if strategy == "ddpg":
        pytest.importorskip("stable_baselines3", reason="needs the extra 'train'")
    found = allocate_bits(
        make,
        TRAIN,
        VALIDATION,
        equivalent_bits=3,
        w_bit_max=6,
        strategy=strategy,
        max_evaluations=8,
        nb_rlouts=12,
        nb_tune_global_steps=2,
        nb_tune_layerwise_steps=1,
    )
    learner = make(found.weight_bits)
    assert learner.weight_bits == found.weight_bits
    assert found.equivalent_bits == pytest.approx(average(found.weight_bits, learner), abs=0.01)
    assert 3 <= len(found.trials) <= (8 if strategy == "frontier" else 12)
    assert all(average(bits, learner) <= 3 for bits, _ in found.trials)
    assert all(2 <= width <= 6 for bits, _ in found.trials for width in bits.values())
    assert len({tuple(bits.values()) for bits, _ in found.trials}) == len(found.trials)
    assert found.metric == max(metric for _, metric in found.trials)
    assert found.float_metric == pytest.approx(0.99, abs=0.01)


def test_a_search_gives_the_same_bits_again_and_leaves_the_users_random_numbers():
    options = {"equivalent_bits": 3, "max_evaluations": 4, "nb_tune_global_steps": 1}
    before = torch.get_rng_state()
    first, second = (allocate_bits(make, TRAIN, VALIDATION, **options) for _ in range(2))
    assert first == second
    assert torch.equal(before, torch.get_rng_state())


def test_the_best_evaluation_is_no_worse_than_the_same_bits_everywhere():
    found = allocate_bits(make, TRAIN, VALIDATION, equivalent_bits=3, max_evaluations=6, nb_tune_global_steps=0)
    assert found.metric >= make(dict.fromkeys(found.weight_bits, 3)).evaluate(VALIDATION)


def test_errors_fall_with_bits_and_are_those_of_the_learners_own_levels():
    units = units_of_bits(make({}), make, SPLIT.train.images, range(2, 9))
    assert [unit.layers for unit in units] == [(layer.name,) for layer in make({}).layers]
    for unit in units:
        errors = [option.error for option in unit.options]
        assert errors == sorted(errors, reverse=True) and errors[-1] < 0.01
        assert unit.options[-1].size_bytes <= unit.num_weights


def test_n2uq_takes_what_was_found():
    def make_n2uq(bits):
        return N2UQLearner(MODEL_FILE, weight_bits=bits, activation_bits=4)

    found = allocate_bits(
        make_n2uq, TRAIN, VALIDATION, equivalent_bits=3, w_bit_max=4, max_evaluations=3, nb_tune_global_steps=2
    )
    assert make_n2uq(found.weight_bits).weight_bits == found.weight_bits


def test_tuning_layer_by_layer_brings_the_output_nearer_to_the_float_networks():
    images = SPLIT.held_out.images
    floats = make(dict.fromkeys(make({}).weight_bits, 8)).predict(images)

    def distance(steps):
        learner = make({layer.name: 2 for layer in make({}).layers})
        tune_layers(learner, list(TRAIN)[:steps], 1e-3, seed=0)
        return float(np.square(learner.predict(images) - floats).mean())

    assert distance(8) < 0.8 * distance(0)


def test_what_cannot_be_met_is_said():
    for wrong in ({"equivalent_bits": 1.5}, {"w_bit_max": 9}, {"w_bit_min": 5, "equivalent_bits": 4}):
        with pytest.raises(ParameterError, match="w_bit_min <= equivalent_bits <= w_bit_max"):
            allocate_bits(make, TRAIN, VALIDATION, **wrong)
    with pytest.raises(ParameterError, match="'batches' parameter is empty"):
        allocate_bits(make, [], VALIDATION)
