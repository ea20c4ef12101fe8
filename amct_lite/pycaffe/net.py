"""`Net`, as pycaffe has it, for phase TEST."""

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.caffe.reading import read_network
from amct_lite.calibration.modified_model import read_caffe_task
from amct_lite.errors import ParameterError
from amct_lite.pycaffe.batches import join_batches, split_batches
from amct_lite.pycaffe.blob import Blob
from amct_lite.pycaffe.execution import Execution, compile_network, up_to_layer
from amct_lite.pycaffe.parameters import NetLayer, parameter_blobs
from amct_lite.running_calibration import RunningCalibration

__all__ = ["TEST", "TRAIN", "Net"]

TRAIN, TEST = 0, 1

# Detection scripts go through the same few image sizes again and again; each session holds the weights once more.
_SESSIONS_KEPT = 4

Arrays = dict[str, npt.NDArray[np.float32]]


class Net:
    """A Caffe network that runs on ONNX Runtime; for a calibration pair each `forward` is also a calibration batch.

    Attributes:
        blobs: Blob name -> Blob, in the order in which the network makes them; filled by `forward`.
        params: Layer name -> its weight blobs.
        layer_dict: Layer name -> NetLayer; `_layer_names` and `layers` list the same.
        inputs: Names of the input blobs.
        outputs: Names of the output blobs.
        top_names: Layer name -> its tops.
        bottom_names: Layer name -> its bottoms.

    Example:
        >>> net = Net("deploy.prototxt", "net.caffemodel", TEST)  # doctest: +SKIP
        >>> net.blobs["data"].data[...] = batch  # doctest: +SKIP
        >>> probabilities = net.forward()["prob"]  # doctest: +SKIP
    """

    def __init__(
        self,
        network_file: str | os.PathLike[str],
        *arguments: Any,
        phase: int | None = None,
        level: int = 0,
        stages: Sequence[str] | None = None,
        weights: str | os.PathLike[str] | None = None,
        providers: Sequence[Any] = ("CPUExecutionProvider",),
        strict: bool = True,
    ) -> None:
        """Open a network: `Net(model, weights, TEST)`, or `Net(model, TEST, weights=weights)`.

        Args:
            network_file: The prototxt.
            *arguments: (weights, phase), or (phase, level, stages, weights).
            phase: TEST.
            level: 0: rules on levels are not followed.
            stages: None: rules on stages are not followed.
            weights: The caffemodel; None where `copy_from` gives it later.
            providers: onnxruntime's execution providers (not in pycaffe).
            strict: Whether a field that is not known is an error, or a warning (not in pycaffe).

        Raises:
            AmctError: The network cannot be read or run.
        """
        keywords = {"phase": phase, "level": level, "stages": stages, "weights": weights}
        weights = _weights_of(arguments, keywords)
        self._providers = tuple(providers)
        self._network = read_network(network_file, weights, strict=strict)
        task = read_caffe_task(Path(network_file))
        self._calibration = None if task is None else RunningCalibration(task)
        self._executions: OrderedDict[Any, Execution] = OrderedDict()
        self.params = OrderedDict((layer.name, parameter_blobs(layer)) for layer in self._network.layers if layer.blobs)
        self.layer_dict = OrderedDict(
            (layer.name, NetLayer(layer.type, self.params.get(layer.name, []))) for layer in self._network.layers
        )
        self.inputs, self.outputs = list(self._network.inputs), list(self._network.outputs)
        self.top_names = OrderedDict((layer.name, list(layer.params.top)) for layer in self._network.layers)
        self.bottom_names = OrderedDict((layer.name, list(layer.params.bottom)) for layer in self._network.layers)
        self.blobs = OrderedDict((name, Blob(tuple(shape))) for name, shape in self._network.inputs.items())
        for tops in self.top_names.values():
            for top in tops:
                self.blobs.setdefault(top, Blob())
        # A network that gets its weights later, through copy_from, cannot run yet.
        if self._network.caffemodel is not None:
            self.reshape()

    @property
    def layers(self) -> list[NetLayer]:
        """The layers, in running order."""
        return list(self.layer_dict.values())

    @property
    def _layer_names(self) -> list[str]:
        return list(self.layer_dict)

    def reshape(self) -> None:
        """Give every blob the shape that follows from those of the inputs."""
        for blob, shape in self._execution(None).shapes.items():
            if blob not in self.inputs:
                self.blobs[blob].reshape(*shape)

    def copy_from(self, weights: str | os.PathLike[str]) -> None:
        """Take the weights from a caffemodel; layers that it does not have keep theirs.

        Args:
            weights: The caffemodel.
        """
        layers = []
        for old, new in zip(self._network.layers, read_network(self._network.prototxt, weights).layers, strict=True):
            if old.blobs and new.blobs:
                for blob, values in zip(self.params[new.name], new.blobs, strict=True):
                    blob.data[...] = values.reshape(blob.shape)
            elif new.blobs:
                self.params[new.name] = parameter_blobs(new)
                self.layer_dict[new.name].blobs = list(self.params[new.name])
            layers.append(new if new.blobs and not old.blobs else old)
        self._network = replace(self._network, layers=tuple(layers))
        self._executions.clear()
        self.reshape()

    def forward(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **inputs: Any
    ) -> Arrays:
        """Run the network.

        Args:
            blobs: Names of blobs to return as well.
            start: None: the run begins at the inputs.
            end: Name of the last layer to run; its tops are returned instead of the outputs.
            **inputs: Input blob -> array, for all inputs; without any, those set in `blobs` are used.

        Returns:
            Output blob -> its array, which the next run overwrites.

        Raises:
            ParameterError: The inputs do not fit, or `start` or an unknown `end` is given.
            CalibrationError: The batch has NaN or infinite activations, in a calibration model.
        """
        if start is not None and start != next(iter(self.layer_dict), None):
            raise ParameterError(
                f"The 'start' parameter of forward must be None: the run begins at the inputs. Got {start!r} instead."
            )
        if end is not None and end not in self.layer_dict:
            raise ParameterError(f"The 'end' parameter of forward must name a layer. Got {end!r} instead.")
        if inputs:
            self._set_inputs(inputs)
        execution = self._execution(end)
        calibration = self._calibration
        if calibration is not None and (calibration.done or end is not None):
            calibration = None
        if calibration is not None:
            calibration.refuse_after_failure()
        feed = {name: self.blobs[name].data for name in self.inputs}
        for blob, values in execution.run(feed, calibration).items():
            self.blobs[blob].store(values)
        wanted = [*(self.outputs if end is None else self.top_names[end]), *(blobs or [])]
        return {name: self.blobs[name].data for name in wanted}

    def forward_all(self, blobs: Sequence[str] | None = None, **inputs: Any) -> Arrays:
        """Run the network over more items than a batch holds.

        Args:
            blobs: Names of blobs to return as well.
            **inputs: Input blob -> array of as many items as wanted along its first axis.

        Returns:
            Blob -> array of all items.

        Raises:
            ParameterError: The inputs do not fit.
        """
        self._check_names(inputs)
        sizes = {name: self.blobs[name].num for name in self.inputs}
        parts = []
        for batch, used in split_batches(inputs, sizes):
            results = self.forward(blobs, None, None, **batch)
            parts.append({name: values[:used].copy() for name, values in results.items()})
        return join_batches(parts)

    def _set_inputs(self, inputs: Mapping[str, Any]) -> None:
        self._check_names(inputs)
        for name, values in inputs.items():
            blob, array = self.blobs[name], np.asarray(values)
            if array.shape[:1] != blob.shape[:1]:
                raise ParameterError(
                    f"Input {name!r} must be a batch of {blob.num} items. Got the shape {array.shape} instead.",
                    remedy=f"Reshape the blob first: net.blobs[{name!r}].reshape(...), or use forward_all.",
                )
            blob.data[...] = array

    def _check_names(self, inputs: Mapping[str, Any]) -> None:
        if set(inputs) != set(self.inputs):
            raise ParameterError(f"Give an array for each of the inputs {self.inputs}. Got {sorted(inputs)} instead.")

    def _execution(self, end: str | None) -> Execution:
        """The compiled network for the inputs' shapes and the weights as they are now."""
        changed = [name for name, blobs in self.params.items() if any(blob.changed for blob in blobs)]
        if changed:
            self._executions.clear()
            layers = [
                replace(layer, blobs=tuple(blob.take() for blob in self.params[layer.name]))
                if layer.name in changed
                else layer
                for layer in self._network.layers
            ]
            self._network = replace(self._network, layers=tuple(layers))
        shapes = {name: self.blobs[name].shape for name in self.inputs}
        key = (end, *shapes.values())
        if key not in self._executions:
            network = self._network if end is None else up_to_layer(self._network, end)
            observed = () if self._calibration is None else self._calibration.task.tensors
            self._executions[key] = compile_network(network, shapes, self._providers, observed)
            if len(self._executions) > _SESSIONS_KEPT:
                self._executions.popitem(last=False)
        self._executions.move_to_end(key)
        return self._executions[key]


def _weights_of(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> str | os.PathLike[str] | None:
    """The caffemodel among Net's arguments, in whichever of pycaffe's two orders; the others are checked."""
    old_order = bool(arguments) and not isinstance(arguments[0], int)
    names = ("weights", "phase") if old_order else ("phase", "level", "stages", "weights")
    if len(arguments) > len(names):
        raise ParameterError(f"Net takes (model, weights, phase) or (model, phase, ...). Got {arguments} after model.")
    given = {**keywords, **dict(zip(names, arguments, strict=False))}
    if given["phase"] != TEST:
        raise ParameterError("The 'phase' parameter of Net must be TEST: amct_lite.pycaffe does not train.")
    if given["level"] or given["stages"]:
        raise ParameterError("Net follows no rules on levels and stages; leave 'level' and 'stages' out.")
    weights: str | os.PathLike[str] | None = given["weights"]
    return weights
