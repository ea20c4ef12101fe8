"""One network at one set of input shapes, ready to run with every blob at hand."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.caffe.network import CaffeNetwork
from amct_lite.caffe.translate import translate
from amct_lite.graph.runtime import create_session
from amct_lite.running_calibration import RunningCalibration

__all__ = ["Execution", "compile_network", "up_to_layer"]


@dataclass(frozen=True)
class Execution:
    """A compiled network.

    Attributes:
        session: The onnxruntime session; its outputs are the values below.
        values: Blob -> the value that it has after the run, for every blob that a layer writes.
        shapes: Blob -> shape, for those blobs; a size is 0 where only a run can tell it.
        observed: Further values that the session puts out for a calibration.
    """

    session: Any
    values: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    observed: tuple[str, ...] = ()

    def run(
        self, feed: Mapping[str, npt.NDArray[np.float32]], calibration: RunningCalibration | None = None
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Compute every blob from the inputs.

        Args:
            feed: Input blob -> array.
            calibration: Observers that this run feeds.
        """
        names = list(dict.fromkeys([*self.values.values(), *self.observed]))
        results = dict(zip(names, self.session.run(names, dict(feed)), strict=True))
        if calibration is not None:
            calibration.observe(feed, results)
        return {blob: results[value] for blob, value in self.values.items()}


def compile_network(
    network: CaffeNetwork,
    input_shapes: Mapping[str, tuple[int, ...]],
    providers: Sequence[Any],
    observed: Collection[str] = (),
) -> Execution:
    """Translate a network for given input shapes and open a session that puts out every blob.

    Args:
        network: The network with its weights.
        input_shapes: Input blob -> shape.
        providers: onnxruntime's execution providers in order of preference.
        observed: Further values that a calibration looks at.

    Raises:
        ModelError: A layer is not supported, or the shapes do not fit it.
    """
    model = translate(network, free_batch=False, input_shapes=input_shapes)
    produced = {value.name: value for node in model.graph for value in node.outputs}
    values = {}
    for blob, name in network.blobs.items():
        # An output that is an input at the same time has a name of its own as output.
        written = name if name in produced else f"{name}#1"
        if written in produced:
            values[blob] = written
    observed = tuple(name for name in observed if name in produced)
    session = create_session(model, extra_outputs=[*values.values(), *observed], providers=providers)
    shapes = {}
    for blob, name in values.items():
        shape = produced[name].shape
        shapes[blob] = tuple(size if isinstance(size, int) else 0 for size in shape) if shape is not None else ()
    return Execution(session, values, shapes, observed)


def up_to_layer(network: CaffeNetwork, last: str) -> CaffeNetwork:
    """The network as it stands after one of its layers has run.

    Args:
        network: The whole network.
        last: Name of the last layer to keep.
    """
    end = next(index for index, layer in enumerate(network.layers) if layer.name == last)
    layers = network.layers[: end + 1]
    blobs = {blob: blob for blob in network.inputs}
    for layer in layers:
        blobs.update(zip(layer.params.top, layer.tops, strict=True))
    return replace(network, layers=layers, blobs=blobs, outputs=tuple(dict.fromkeys(layers[-1].params.top)))
