"""UniformLearner: weights on equally spaced levels, trained as they will be stored."""

from typing import Any

from amct_lite.codebook.level_type import LevelType
from amct_lite.learn.buckets import Buckets
from amct_lite.learn.weight_learner import WeightLearner
from amct_lite.learn.weight_quantizers import UniformQuantizer

__all__ = ["UniformLearner"]


class UniformLearner(WeightLearner):
    """PocketFlow's UniformQuantLearner: see WeightLearner for its options and Learner for what it does.

    Example:
        >>> from amct_lite.learn import ArrayBatches, UniformLearner
        >>> from amct_lite.samples.digits.data import MODEL_FILE, load_split
        >>> part = load_split().train
        >>> learner = UniformLearner(MODEL_FILE, weight_bits=2)
        >>> history = learner.fit(ArrayBatches(part.images, part.labels), epochs=1)
        >>> len(history)
        1
    """

    def make_quantizer(self, buckets: Buckets, num_bits: int, weight: Any, level_type: LevelType) -> UniformQuantizer:
        """The quantizer of a weight."""
        return UniformQuantizer(buckets, num_bits, weight, level_type)
