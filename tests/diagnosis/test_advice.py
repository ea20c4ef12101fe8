"""Each sentence follows from the figures that a layer shows."""

import pytest

from amct_lite.diagnosis.advice import Treatment, advise

INT8 = Treatment(weight_bits=8, channel_wise=True, act_algo="ifmr", with_offset=True, nuq_input=False)


def advice(treatment=INT8, **figures):
    usual = {"own_db": 15.0, "whole_db": 12.0, "weight_share": 0.1, "crest": 4.0, "lowest_input": -1.0, "culprit": None}
    return advise(**{**usual, **figures}, treatment=treatment)


def test_a_sound_layer_needs_nothing() -> None:
    assert advice(own_db=35.0, whole_db=30.0) == ""


def test_a_sound_layer_behind_a_bad_one_points_to_it() -> None:
    assert "look at 'conv1' first" in advice(own_db=35.0, whole_db=5.0, culprit="'conv1'")


@pytest.mark.parametrize(
    ("treatment", "words"),
    [
        (Treatment(4, True, None, False, False), "4 bits are too few here"),
        (Treatment(8, False, "ifmr", True, False), "set channel_wise"),
        (INT8, "keep the layer float"),
        (None, "keep the layer float"),
    ],
)
def test_noise_by_weights(treatment, words) -> None:
    text = advice(treatment, weight_share=0.9)
    assert text.startswith("90% of its noise comes from its weights") and words in text


@pytest.mark.parametrize(
    ("treatment", "figures", "words"),
    [
        (INT8, {"crest": 48.0}, "the largest 48 times its root mean square, try act_algo"),
        (Treatment(8, True, "ifmr", False, False), {"lowest_input": 0.0}, "set asymmetric"),
        (Treatment(8, True, "ifmr", True, True), {"crest": 48.0}, "raise target_compression_ratio"),
        (INT8, {}, "too coarse"),
        (None, {}, "too coarse"),
    ],
)
def test_noise_by_the_input(treatment, figures, words) -> None:
    text = advice(treatment, **figures)
    assert text.startswith("90% of its noise comes from its input") and words in text


def test_the_range_algorithm_in_use_is_not_advised() -> None:
    assert "ifmr" not in advice(crest=48.0)
