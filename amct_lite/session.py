"""`InferenceSession`: onnxruntime's interface over a model; a calibration model's runs feed its observers."""

from collections.abc import Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import onnx_ir as ir

from amct_lite.calibration.feeds import input_specs, to_feed
from amct_lite.calibration.modified_model import CalibrationTask, read_caffe_task, read_task
from amct_lite.calibration.observer_nodes import remove_observer_nodes
from amct_lite.errors import ModelError
from amct_lite.graph.opening import is_caffe, refuse_weights
from amct_lite.graph.runtime import create_session
from amct_lite.reuse.offers import open_offered
from amct_lite.running_calibration import RunningCalibration

__all__ = ["InferenceSession"]


class InferenceSession:
    """Runs an ONNX file or a Caffe pair on ONNX Runtime, with the methods of `onnxruntime.InferenceSession`.

    Inputs, outputs and intermediate blobs of a Caffe network go by their Caffe names. For a calibration model (written
    by `quantize_model`) each `run` is also a calibration batch: after `batch_num` of them the record is written, and
    further runs only compute.

    Example:
        >>> session = InferenceSession("modified.onnx")  # doctest: +SKIP
        >>> logits = session.run(None, {"image": batch})[0]  # doctest: +SKIP
        >>> conv1 = InferenceSession("deploy.prototxt", "net.caffemodel").run(["conv1"], feed)  # doctest: +SKIP
    """

    def __init__(
        self,
        model_file: str | PathLike[str],
        weights_file: Any = None,
        sess_options: Any = None,
        providers: Sequence[Any] | None = None,
        *,
        strict: bool = True,
        **options: Any,
    ) -> None:
        """Open a model.

        Args:
            model_file: An ONNX file, or a Caffe network (.prototxt).
            weights_file: The caffemodel of a Caffe network; None for ONNX. Session options given here, where
                onnxruntime's own session takes them, count as `sess_options`.
            sess_options: onnxruntime.SessionOptions, for example with a custom-operator library.
            providers: Execution providers; the CPU's when None.
            strict: For a prototxt: whether a field that is not known is an error, or a warning.
            **options: Passed on to onnxruntime.InferenceSession, for ONNX.

        Raises:
            AmctError: The model cannot be read or translated, or ONNX Runtime cannot load it.
        """
        if weights_file is not None and not isinstance(weights_file, str | PathLike):
            weights_file, sess_options = None, weights_file
        self._path = Path(model_file).resolve()
        if not self._path.is_file():
            raise ModelError(f"There is no model at {model_file}.", remedy="Check the path.")
        self._caffe: _CaffeSource | None = None
        if is_caffe(model_file, weights_file):
            self._caffe = _CaffeSource(model_file, weights_file, sess_options, providers, strict=strict)
            task = read_caffe_task(self._path)
            self._session = self._caffe.session([])
        else:
            refuse_weights(model_file, weights_file)
            task = read_task(self._path)
            if task is not None:
                self._session = _open_calibration_model(self._path, task, sess_options, providers, options)
            else:
                open_plain = partial(_open_onnx, self._path, sess_options, providers, options)
                # What the user sets for a session is for a session of the whole model.
                as_usual = sess_options is None and providers is None and not options
                candidate = open_offered(self._path, open_plain) if as_usual else None
                self._session = open_plain() if candidate is None else candidate
        self._calibration = None if task is None else RunningCalibration(task)

    def get_inputs(self) -> list[Any]:
        """The model's inputs, with name, type and shape each."""
        return list(self._session.get_inputs())

    def get_outputs(self) -> list[Any]:
        """The model's outputs; those for observers, and blobs exposed by an earlier run, are left out."""
        outputs = list(self._session.get_outputs())
        own = self._calibration.task.outputs if self._calibration is not None else None
        if self._caffe is not None:
            own = self._caffe.outputs
        return outputs if own is None else [item for item in outputs if item.name in own]

    def get_providers(self) -> list[str]:
        """The execution providers in use."""
        return list(self._session.get_providers())

    def get_modelmeta(self) -> Any:
        """Onnxruntime's ModelMetadata."""
        return self._session.get_modelmeta()

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: Any = None
    ) -> list[Any]:
        """Compute outputs for one batch.

        Args:
            output_names: Which outputs; all of the network's own when None.
            input_feed: Input name -> array.
            run_options: onnxruntime.RunOptions.

        Returns:
            One array for each name.

        Raises:
            CalibrationError: The batch does not fit a calibration model, or has NaN or infinite activations.
        """
        wanted = list(output_names) if output_names else [item.name for item in self.get_outputs()]
        if self._caffe is not None:
            wanted = [self._caffe.value_of(name) for name in wanted]
            observed = self._calibration.task.tensors if self._calibration is not None else ()
            self._session = self._caffe.session([*wanted, *observed])
        calibration = self._calibration
        if calibration is None or calibration.done:
            return list(self._session.run(wanted, dict(input_feed), run_options))
        feed = to_feed(input_feed, input_specs(self._session), calibration.next_batch)
        calibration.refuse_after_failure()
        produced = [name for name in calibration.task.tensors if name not in feed]
        names = list(dict.fromkeys([*produced, *wanted]))
        values = dict(zip(names, self._session.run(names, feed, run_options), strict=True))
        calibration.observe(feed, values)
        return [values[name] for name in wanted]


class _CaffeSource:
    """A Caffe network as ONNX Runtime sessions: one at a time, opened anew when further blobs are asked for."""

    def __init__(
        self,
        prototxt: str | PathLike[str],
        caffemodel: str | PathLike[str] | None,
        sess_options: Any,
        providers: Sequence[Any] | None,
        *,
        strict: bool,
    ) -> None:
        from amct_lite.caffe.reading import read_network
        from amct_lite.caffe.translate import translate

        self._network = read_network(prototxt, caffemodel, strict=strict)
        self._graph = translate(self._network)
        self._options = {"sess_options": sess_options, "providers": tuple(providers or ("CPUExecutionProvider",))}
        self._known = {value.name for node in self._graph.graph for value in node.outputs}
        self._inputs = {value.name for value in self._graph.graph.inputs}
        self.outputs = [value.name or "" for value in self._graph.graph.outputs]
        self._exposed: set[str] = set()
        self._session: Any = None

    def value_of(self, blob: str) -> str:
        """The value that a blob's name stands for: its last version."""
        name = self._network.blobs.get(blob, blob)
        if name not in self._known | self._inputs:
            raise ModelError(
                f"The network {self._network.prototxt} has no blob {blob!r}.",
                remedy=f"Its outputs are: {', '.join(self.outputs)}.",
            )
        return name

    def session(self, names: Sequence[str]) -> Any:
        """A session that gives at least these values and the network's outputs."""
        wanted = {name for name in names if name not in self.outputs and name not in self._inputs}
        if self._session is None or not wanted <= self._exposed:
            self._exposed |= wanted
            self._session = create_session(self._graph, extra_outputs=sorted(self._exposed), **self._options)
        return self._session


def _open_calibration_model(
    path: Path,
    task: CalibrationTask,
    sess_options: Any,
    providers: Sequence[Any] | None,
    options: Mapping[str, Any],
) -> Any:
    """A session with the observed tensors as outputs, in place of the nodes that would observe them."""
    model = ir.load(path)
    remove_observer_nodes(model)
    inputs = {value.name for value in model.graph.inputs}
    return create_session(
        model,
        extra_outputs=[name for name in task.tensors if name not in inputs],
        sess_options=sess_options,
        providers=providers or ("CPUExecutionProvider",),
        **options,
    )


def _open_onnx(path: Path, sess_options: Any, providers: Sequence[Any] | None, options: Mapping[str, Any]) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(str(path), sess_options, providers or ["CPUExecutionProvider"], **options)
    except Exception as error:  # onnxruntime raises a class of its own for each status code
        raise ModelError(f"ONNX Runtime cannot load {path}: {error}") from error
