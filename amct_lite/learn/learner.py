"""What every learner does: take a network and labelled batches, train it as it will be quantized, save the result."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from amct_lite.errors import ParameterError
from amct_lite.export.save import Saved
from amct_lite.files.target import Target, load_target
from amct_lite.graph.opening import open_model
from amct_lite.learn.batches import first_and_all, run_module, to_device
from amct_lite.learn.losses import Distillation, accuracy, cross_entropy, logits_of, with_distillation
from amct_lite.learn.own_randomness import OwnRandomness
from amct_lite.learn.quantizer import Quantizer
from amct_lite.learn.saving import Learned, save_trained
from amct_lite.learn.torch_graph import TorchGraph
from amct_lite.learn.training import Epoch, Training, train
from amct_lite.learn.verification import check_translation
from amct_lite.types import Layer, Technique

__all__ = ["Learner"]

StrPath = str | PathLike[str]
Loss = Callable[[Any, Any], Any]
Metric = Callable[[Any, Any], float]
Predict = Callable[[Any], npt.NDArray[np.float32]]
Validation = Iterable[Any] | Callable[[Predict], float]


class Learner(ABC):
    """A network in training. Subclasses put quantizers into `graph` and say in `learned` what came out.

    Attributes:
        model: The float network, as it was loaded.
        graph: The same as a torch module, with quantizers in it.
        layers: The layers that are quantized, in graph order.
        history: What each epoch gave.
        quant_delay: Steps before quantizers do anything but follow ranges.
        freeze_bn_delay: Steps in which BatchNormalization that was not folded follows its batches; None: it never does.
        integer_operators: Operators between layers whose inputs are quantized too.
    """

    batch_norm_momentum = 0.1
    integer_operators: tuple[str, ...] = ()

    def __init__(
        self,
        model_file: StrPath,
        weights_file: StrPath | None = None,
        *,
        quantize_all_layers: bool = False,
        skip_layers: Collection[str] = (),
        fold_batch_norm: bool = True,
        quant_delay: int = 0,
        freeze_bn_delay: int | None = None,
    ) -> None:
        """Load a network and translate it.

        Args:
            model_file: An ONNX file, or a Caffe network (.prototxt).
            weights_file: The caffemodel of a Caffe network.
            quantize_all_layers: False leaves the first and the last layer with weights alone.
            skip_layers: Names of layers that are left alone as well.
            fold_batch_norm: Whether BatchNormalization is folded into the layer before it.
            quant_delay: See the class.
            freeze_bn_delay: See the class.

        Raises:
            ModelError: It has operators that cannot be trained; all of them are named. Or no layer can be quantized.
        """
        self.model = open_model(model_file, weights_file, fold_batch_norm=fold_batch_norm)
        self.graph = TorchGraph(self.model)
        self._outputs = self.graph.outputs
        self.target: Target = load_target("onnxruntime")
        for name in skip_layers:
            self.model.layer(name)
        weighted = [layer for layer in self.model.layers if layer.weight is not None and layer.blocked is None]
        chosen = weighted if quantize_all_layers else weighted[1:-1]
        names = {layer.name for layer in chosen if self.target.refusal(layer, Technique.CODEBOOK) is None}
        names -= set(skip_layers)
        # A weight that another layer needs in float stays float.
        self.layers = tuple(layer for layer in chosen if {layer.name, *layer.tied_with} <= names)
        if not self.layers:
            raise ParameterError(
                f"The network has {len(weighted)} layers with weights, and none of them is left to quantize.",
                remedy="Set quantize_all_layers to True, or skip fewer layers.",
            )
        self.history: tuple[Epoch, ...] = ()
        self.quant_delay, self.freeze_bn_delay = quant_delay, freeze_bn_delay
        self._identity = {
            "learner": type(self).__name__,
            "model": self.model.digest,
            "layers": [layer.name for layer in self.layers],
            "quant_delay": quant_delay,
            "freeze_bn_delay": freeze_bn_delay,
        }
        self._device: Any = torch.device("cpu")
        self._quantizes = True

    @abstractmethod
    def options(self) -> Mapping[str, Any]:
        """The learner's own options, plain numbers and strings, which a checkpoint has to agree with."""

    @abstractmethod
    def learned(self) -> Mapping[str, Learned]:
        """Layer name -> what training made of it; called in evaluation mode, on the CPU."""

    def parameters(self, learning_rate: float) -> list[Any]:  # noqa: ARG002 - for groups of subclasses
        """What is trained: tensors, or PyTorch's groups of them with learning rates of their own."""
        return [parameter for parameter in self.graph.parameters() if parameter.requires_grad]

    def fit(
        self,
        batches: Iterable[Any],
        *,
        epochs: int = 1,
        learning_rate: float = 1e-3,
        learning_rate_decay: float | str = "cosine",
        validation: Validation | None = None,
        loss: Loss | None = None,
        metric: Metric | None = None,
        distillation: Distillation | None = None,
        optimizer: Callable[[Any, float], Any] | None = None,
        patience: int | None = None,
        seed: int = 0,
        device: str | None = None,
        mixed_precision: bool = False,
        checkpoint: StrPath | None = None,
    ) -> tuple[Epoch, ...]:
        """Train. The first batch has to give the same in PyTorch as in ONNX Runtime.

        Args:
            batches: (inputs, labels) pairs of arrays or tensors, iterated once an epoch: ArrayBatches, a DataLoader, a
                list. Inputs of a network that has several are a tuple, or a dict by name.
            epochs: Passes over them.
            learning_rate: Of the first epoch.
            learning_rate_decay: A factor after each epoch, or "cosine" down to 0.
            validation: Batches too, for the metric after each epoch: the best epoch's weights are kept. Or a function
                of one's own: it is given a function from inputs to outputs, and returns a number, greater being better.
            loss: (outputs, labels) -> a scalar tensor; None for cross-entropy. Only this default looks through a
                Softmax at the network's end, to the logits before it.
            metric: (outputs, labels of a batch) -> a number, greater is better, averaged over samples; None for
                accuracy.
            distillation: Learn from the float network too.
            optimizer: (parameters, learning rate) -> one of PyTorch's; None for Adam.
            patience: Epochs without a better metric after which training ends.
            seed: Of all random numbers in training; the user's own generators stay as they are.
            device: None for CUDA where there is one, else the CPU.
            mixed_precision: Whether CUDA computes in bfloat16 where that is safe.
            checkpoint: A file written after each epoch, from which a training that was stopped goes on to the same
                weights. One that belongs to another training is refused.

        Returns:
            What each epoch gave.

        Raises:
            ParameterError: The batches or the options do not fit.
            TrainingError: PyTorch and ONNX Runtime differ, or the loss is no finite number.
        """
        training = Training(
            epochs=epochs,
            learning_rate=learning_rate,
            learning_rate_decay=learning_rate_decay,
            optimizer=optimizer,
            patience=patience,
            seed=seed,
            device=device,
            mixed_precision=mixed_precision,
            checkpoint=None if checkpoint is None else Path(checkpoint),
        )
        with OwnRandomness(seed, threads=None).used():  # a DataLoader draws as soon as it is looked at
            first, batches = first_and_all(batches, epochs)
        if epochs > 1 and isinstance(validation, Iterator):
            raise ParameterError(
                f"The 'validation' parameter of fit can be iterated once only, and there are {epochs} epochs.",
                remedy="Give a list, a DataLoader, or ArrayBatches.",
            )
        check_translation(self.model, first[0])
        self._device = training.torch_device
        logits = logits_of(self.model) if loss is None else None
        with self.graph.reading(self.graph.outputs if logits is None else [logits]):
            wanted = self._loss(loss or cross_entropy, distillation)
            validate = None if validation is None else lambda: self._measure(validation, metric)
            history = train(
                self.graph,
                batches,
                wanted,
                training,
                parameters=self.parameters(learning_rate),
                validate=validate,
                before_step=self.before_step,
                identity={**self._identity, **self.options(), "distillation": str(distillation)},
            )
        self._evaluation_mode()
        self.history = tuple(history)
        return self.history

    def before_step(self, steps: int) -> None:
        """Called with the number of steps done, before each."""
        self._enable(steps >= self.quant_delay)
        follows = self.freeze_bn_delay is not None and steps < self.freeze_bn_delay
        self.graph.follow_batches(self.batch_norm_momentum if follows else None)

    def evaluate(self, batches: Validation, metric: Metric | None = None, *, quantized: bool = True) -> float:
        """A metric of the quantized network, in PyTorch.

        Args:
            batches: As for `validation` of `fit`.
            metric: As for `fit`.
            quantized: False measures the network with its weights as they are, in float.
        """
        self._quantizes = quantized
        try:
            return self._measure(batches, metric)
        finally:
            self._quantizes = True

    def predict(self, inputs: Any) -> npt.NDArray[np.float32]:
        """The outputs of the quantized network for the inputs of a batch; of several, the first."""
        self._evaluation_mode()
        with torch.no_grad(), self.graph.reading(self._outputs):
            outputs = run_module(self.graph, to_device(inputs, self._device, inputs=True))
        found: npt.NDArray[np.float32] = (outputs[0] if isinstance(outputs, tuple) else outputs).cpu().numpy()
        return found

    def save(self, save_path: StrPath, save_type: str = "Both") -> Saved:
        """Write the trained network in every form, with config, record and summary.

        The files are those of `amct_lite.save_model`, and beside them "float_model": the trained network with its
        quantized numbers in float32, for which config and record hold.

        Args:
            save_path: Folder and file prefix, "out/lenet"; without a prefix when it ends in "/".
            save_type: "Fakequant", "Deploy" or "Both".

        Raises:
            AmctError: A file cannot be written, or a form cannot express a layer.
        """
        self._evaluation_mode()
        self.graph.to("cpu")
        self._device = torch.device("cpu")
        learned, path = self.learned(), Path(save_path)
        return save_trained(self.model, self.graph, learned, self.target, path, save_type, self.integer_operators)

    def quantize_weight(self, layer: Layer, quantizer: Quantizer) -> None:
        """Put a quantizer on a layer's weight; layers that share the weight share it."""
        assert layer.weight is not None
        self.graph.transform_weight(layer.weight, quantizer)

    def quantize_input(self, layer: Layer, quantizer: Quantizer) -> None:
        """Put a quantizer on a layer's input."""
        self.graph.transform_input(layer.node_name, layer.activation_index, quantizer)

    def _measure(self, validation: Validation, metric: Metric | None) -> float:
        self._evaluation_mode()
        if callable(validation) and not isinstance(validation, Iterable):
            return float(validation(self.predict))
        total, count = 0.0, 0
        with torch.no_grad(), self.graph.reading(self._outputs):
            for inputs, labels in validation:
                labels = to_device(labels, self._device)
                outputs = run_module(self.graph, to_device(inputs, self._device, inputs=True))
                size = len(outputs[0] if isinstance(outputs, tuple) else outputs)
                total, count = total + float((metric or accuracy)(outputs, labels)) * size, count + size
        if not count:
            raise ParameterError("There are no batches to evaluate.", remedy="Give (inputs, labels) pairs.")
        return total / count

    def _evaluation_mode(self) -> None:
        self.graph.eval()
        self.graph.follow_batches(None)
        self._enable(self._quantizes)

    def _enable(self, enabled: bool) -> None:
        for module in self.graph.modules():
            if isinstance(module, Quantizer):
                module.enabled = enabled

    def _loss(self, loss: Loss, distillation: Distillation | None) -> Callable[..., Any]:
        if distillation is None:
            return lambda outputs, labels, _inputs: loss(outputs, labels)
        teacher = TorchGraph(self.model, outputs=self.graph.outputs).to(self._device).eval()

        def logits(inputs: Any) -> Any:
            with torch.no_grad():
                return run_module(teacher, inputs)

        return with_distillation(loss, logits, distillation)
