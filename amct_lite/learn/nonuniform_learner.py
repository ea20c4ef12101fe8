"""NonUniformLearner: weights on quantization points that are trained with them or alone."""

from collections.abc import Mapping
from os import PathLike
from typing import Any

from amct_lite.codebook.level_type import LevelType
from amct_lite.errors import ParameterError
from amct_lite.learn.buckets import Buckets
from amct_lite.learn.weight_learner import WeightLearner
from amct_lite.learn.weight_quantizers import INIT_STYLES, PointQuantizer

__all__ = ["NonUniformLearner"]

OPT_MODES = ("weights", "clusters", "both")


class NonUniformLearner(WeightLearner):
    """PocketFlow's NonUniformQuantLearner: see WeightLearner for its other options and Learner for what it does.

    Example:
        >>> from amct_lite.learn import ArrayBatches, NonUniformLearner
        >>> from amct_lite.samples.digits.data import MODEL_FILE, load_split
        >>> part = load_split().train
        >>> learner = NonUniformLearner(MODEL_FILE, weight_bits=2, opt_mode="both")
        >>> history = learner.fit(ArrayBatches(part.images, part.labels), epochs=1)
        >>> len(history)
        1
    """

    def __init__(
        self,
        model_file: str | PathLike[str],
        weights_file: str | PathLike[str] | None = None,
        *,
        opt_mode: str = "both",
        init_style: str = "optimal",
        **options: Any,
    ) -> None:
        """Load a network and put quantizers into it.

        Args:
            model_file: An ONNX file, or a Caffe network (.prototxt).
            weights_file: The caffemodel of a Caffe network.
            opt_mode: What is trained: "weights" (and all else but the points), "clusters" (the points alone) or "both".
            init_style: Where the points begin: "optimal" (exact clustering), or PocketFlow's "quantile" or "uniform".
            options: Those of WeightLearner.

        Raises:
            ParameterError: An option is out of its range.
            ModelError: The network cannot be loaded, or has operators that cannot be trained.
        """
        for name, value, known in (("opt_mode", opt_mode, OPT_MODES), ("init_style", init_style, INIT_STYLES)):
            if value not in known:
                raise ParameterError(f"{name} must be one of {', '.join(map(repr, known))}. Got {value!r} instead.")
        self.opt_mode, self.init_style = opt_mode, init_style
        super().__init__(model_file, weights_file, **options)

    def make_quantizer(self, buckets: Buckets, num_bits: int, weight: Any, level_type: LevelType) -> PointQuantizer:
        """The quantizer of a weight."""
        return PointQuantizer(buckets, num_bits, weight, level_type, self.init_style)

    def options(self) -> Mapping[str, Any]:
        """What a checkpoint has to agree with."""
        return {**super().options(), "opt_mode": self.opt_mode, "init_style": self.init_style}

    def parameters(self, learning_rate: float) -> list[Any]:
        """The weights, the points, or both."""
        points = {id(quantizer.points) for quantizer in self._weights.values() if isinstance(quantizer, PointQuantizer)}
        everything = super().parameters(learning_rate)
        if self.opt_mode == "both":
            return everything
        return [parameter for parameter in everything if (id(parameter) in points) == (self.opt_mode == "clusters")]
