"""EightBitLearner: a network fine-tuned in int8, saved as the int8 network that ONNX Runtime runs, on phones too."""

from collections.abc import Collection, Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from amct_lite.errors import ParameterError
from amct_lite.export.mobile import write_mobile_model
from amct_lite.export.save import Saved
from amct_lite.files.activation_params import MovingAverageParams
from amct_lite.files.config import LayerConfig, QuantConfig
from amct_lite.learn.accumulator_bias import AccumulatorBias
from amct_lite.learn.eight_bit_layers import SymmetricWeight, learned_input, learned_layer_of_integers
from amct_lite.learn.input_quantizer import InputQuantizer
from amct_lite.learn.learner import Learner
from amct_lite.learn.saving import Learned
from amct_lite.quantize.plan import make_plan
from amct_lite.quantize.tensor_plan import plan_tensors
from amct_lite.quantize.weight_rows import weight_layout
from amct_lite.types import Layer, Technique

__all__ = ["EightBitLearner"]

StrPath = str | PathLike[str]

MOMENTUM = 0.01


class EightBitLearner(Learner):
    """What PocketFlow's UniformQuantTFLearner is for: 8 bits, trained where calibration alone costs accuracy.

    Weights have a scale for each output channel, inputs of layers a grid whose range follows the batches. Pooling that
    has integer kernels, and what stands between layers, such as Add, is quantized too, so that whole networks run on
    integers.

    Example:
        >>> from amct_lite.learn import ArrayBatches, EightBitLearner
        >>> from amct_lite.samples.digits.data import MODEL_FILE, load_split
        >>> part = load_split().train
        >>> learner = EightBitLearner(MODEL_FILE, quant_delay=2)
        >>> len(learner.fit(ArrayBatches(part.images[:256], part.labels[:256]), epochs=2))
        2

    Attributes:
        lrn_rate_dcy: What learning rates are multiplied by.
    """

    def __init__(
        self,
        model_file: StrPath,
        weights_file: StrPath | None = None,
        *,
        quantize_all_layers: bool = True,
        skip_layers: Collection[str] = (),
        fold_batch_norm: bool = True,
        quant_delay: int = 0,
        freeze_bn_delay: int | None = None,
        lrn_rate_dcy: float = 1e-2,
    ) -> None:
        """Load a network and put quantizers into it.

        Args:
            model_file: An ONNX file, or a Caffe network (.prototxt).
            weights_file: The caffemodel of a Caffe network.
            quantize_all_layers: False leaves the first and the last layer with weights in float.
            skip_layers: Names of layers that are left alone.
            fold_batch_norm: See `Learner`.
            quant_delay: Steps in float, in which ranges are followed only; PocketFlow's uqtf_quant_delay.
            freeze_bn_delay: See `Learner`; PocketFlow's uqtf_freeze_bn_delay.
            lrn_rate_dcy: What the learning rates given to `fit` are multiplied by, since the network is trained
                already; PocketFlow's uqtf_lrn_rate_dcy.

        Raises:
            ModelError: The network has operators that cannot be trained, all of which are named.
            ParameterError: No layer is left, or lrn_rate_dcy is not positive.
        """
        super().__init__(
            model_file,
            weights_file,
            quantize_all_layers=quantize_all_layers,
            skip_layers=skip_layers,
            fold_batch_norm=fold_batch_norm,
            quant_delay=quant_delay,
            freeze_bn_delay=freeze_bn_delay,
        )
        if lrn_rate_dcy <= 0:
            raise ParameterError(f"The 'lrn_rate_dcy' parameter must be positive. Got {lrn_rate_dcy!r} instead.")
        self.lrn_rate_dcy = lrn_rate_dcy
        self.integer_operators = tuple(self.target.integer_operators)
        self._weights: dict[str, SymmetricWeight] = {}
        self._inputs: dict[str, InputQuantizer] = {}
        self._without_weights = self._plan_without_weights(skip_layers)
        for layer in self.layers:
            assert layer.weight is not None
            if layer.weight not in self._weights:
                channel_wise = self.target.allows_channel_wise(layer)
                self._weights[layer.weight] = SymmetricWeight(weight_layout(layer), channel_wise=channel_wise)
                self.quantize_weight(layer, self._weights[layer.weight])
        for layer in (*self.layers, *self._without_weights):
            self._inputs[layer.name] = InputQuantizer(8, MOMENTUM)
            self.quantize_input(layer, self._inputs[layer.name])
        for layer in self.layers:
            if layer.weight is not None and layer.bias is not None:
                self.graph.transform_weight(layer.bias, AccumulatorBias(partial(self._scales, layer)))

    def options(self) -> Mapping[str, Any]:
        """See `Learner`."""
        return {"lrn_rate_dcy": self.lrn_rate_dcy, "quantized_inputs": list(self._inputs)}

    def parameters(self, learning_rate: float) -> list[Any]:
        """See `Learner`."""
        return [{"params": super().parameters(learning_rate), "lr": learning_rate * self.lrn_rate_dcy}]

    def learned(self) -> Mapping[str, Learned]:
        """See `Learner`."""
        found = {}
        for layer in self.layers:
            assert layer.weight is not None
            weight, bias = (None if name is None else self.graph.parameter(name) for name in (layer.weight, layer.bias))
            quantizer = self._weights[layer.weight]
            found[layer.name] = learned_layer_of_integers(layer, weight, bias, quantizer, self._inputs[layer.name])
        for layer in self._without_weights:
            config = _CONFIG if layer.operator is None else None
            found[layer.name] = Learned(config, learned_input(self._inputs[layer.name]))
        return found

    def save(self, save_path: StrPath, save_type: str = "Both") -> Saved:
        """Write what `Learner.save` writes, and with the deploy model "mobile_model": the same in ORT format.

        Args:
            save_path: Folder and file prefix.
            save_type: "Fakequant", "Deploy" or "Both".

        Raises:
            AmctError: A file cannot be written, or a form cannot express a layer.
        """
        saved = super().save(save_path, save_type)
        if "deploy_model" not in saved.files:
            return saved
        deploy = saved.files["deploy_model"]
        return Saved({**saved.files, "mobile_model": write_mobile_model(deploy, _ort_file(deploy))}, saved.summary)

    def _scales(self, layer: Layer) -> Any:
        """The scales of a layer's weight and of its input; None before the first batch."""
        weight, inputs = layer.weight or "", self._inputs[layer.name]
        if not int(inputs.batches):
            return None
        return self._weights[weight].scales(self.graph.parameter(weight)), inputs.grid()[0].scale

    def _plan_without_weights(self, skip_layers: Collection[str]) -> list[Layer]:
        """Pooling layers, and inputs of operators between layers, that are quantized where the target's kernels are."""
        pools = [
            layer
            for layer in self.model.layers
            if layer.weight is None
            and layer.name not in skip_layers
            and self.target.refusal(layer, Technique.UNIFORM) is None
        ]
        configs = {layer.name: _CONFIG for layer in (*self.layers, *pools)}
        config = QuantConfig.model_validate({"target": self.target.name, "batch_num": 1, **configs})
        plans = make_plan(self.model.layers, config, self.target)
        between = plan_tensors(self.model, plans, self.integer_operators)
        return [*pools, *(plan.layer for plan in between)]


_CONFIG = LayerConfig(
    activation_quant_params=MovingAverageParams(act_algo="moving_average", averaging_constant=MOMENTUM)
)


def _ort_file(deploy: Path) -> Path:
    return deploy.with_suffix(".ort")
