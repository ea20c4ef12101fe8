"""What a layer's bits do to the network's output, seen on a few samples: no training, no labels."""

from collections.abc import Callable, Mapping
from typing import Any

from amct_lite.learn.learner import Learner
from amct_lite.learn.verification import feed_of
from amct_lite.refine.output_change import COMPARED_SAMPLES, OutputChange
from amct_lite.search.choices import Option, Unit, efficient_options
from amct_lite.types import Layer

__all__ = ["units_of_bits"]


def units_of_bits(
    plain: Learner, make_learner: Callable[[Mapping[str, int]], Learner], inputs: Any, bits: range
) -> list[Unit]:
    """The weights of a learner's layers, each with its options.

    Args:
        plain: Any learner of the network, which was not trained.
        make_learner: (layer -> bits) -> a learner, whose own quantizers decide the error.
        inputs: Of a batch.
        bits: The numbers that a layer may get.

    Returns:
        One unit for each weight. An option's error is the square of the output's change relative to the output, where
        that weight alone is quantized; options that are no better than a smaller one are left out.
    """
    feed = {name: array[:COMPARED_SAMPLES] for name, array in feed_of(plain.model, inputs).items()}
    change = OutputChange(plain.model, [feed], max_samples=COMPARED_SAMPLES)
    groups: dict[str, list[Layer]] = {}
    for layer in plain.layers:
        assert layer.weight is not None
        groups.setdefault(layer.weight, []).append(layer)
    options: dict[str, list[Option]] = {weight: [] for weight in groups}
    for width in bits:
        numbers = make_learner({layer.name: width for layer in plain.layers}).graph.quantized_numbers()
        for weight, found in options.items():
            size_bytes = -(-groups[weight][0].num_weights * width // 8)
            found.append(Option(f"uniform{width}", size_bytes, change.of_weight(weight, numbers[weight])))
    return [
        Unit(
            f"weight of {', '.join(layer.name for layer in group)}",
            "weight",
            tuple(layer.name for layer in group),
            efficient_options(options[weight]),
            num_weights=group[0].num_weights,
        )
        for weight, group in groups.items()
    ]
