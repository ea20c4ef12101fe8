"""Tuning layer by layer: each to give what it gives in the float network, PocketFlow's layerwise fine-tuning."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from amct_lite.learn.batches import run_module
from amct_lite.learn.learner import Learner
from amct_lite.learn.torch_graph import TorchGraph
from amct_lite.learn.training import Training, train

__all__ = ["tune_layers"]


def tune_layers(learner: Learner, batches: Sequence[Any], learning_rate: float, seed: int) -> None:
    """Train the weight and the bias of each quantized layer, in graph order, on the squared error at its output.

    The layers before it are quantized already, so it makes up for their errors too.

    Args:
        learner: Its graph is trained in place.
        batches: (inputs, labels) pairs, gone through once for each layer; none trains nothing.
        learning_rate: Falls to 0 along a cosine for each layer.
        seed: Of the training.
    """
    if not batches:
        return
    training = Training(learning_rate=learning_rate, seed=seed)
    for layer in learner.layers:
        names = [name for name in (layer.weight, layer.bias) if name is not None]
        teacher = TorchGraph(learner.model, outputs=[layer.output]).to(training.torch_device).eval()

        def loss(outputs: Any, _labels: Any, inputs: Any, teacher: TorchGraph = teacher) -> Any:
            with torch.no_grad():
                wanted = run_module(teacher, inputs)
            return functional.mse_loss(outputs, wanted)

        with learner.graph.reading([layer.output]):
            parameters = [learner.graph.parameter(name) for name in names]
            train(learner.graph, batches, loss, training, parameters=parameters, before_step=learner.before_step)
