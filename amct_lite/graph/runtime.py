"""An onnxruntime session from a graph, with any of its tensors as outputs."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from amct_lite.errors import ModelError, ParameterError
from amct_lite.graph.cloning import clone_ir, clone_self_contained
from amct_lite.graph.saving import save_ir, stored_bytes
from amct_lite.graph.serializing import to_bytes

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["create_session", "session_bytes", "session_from_bytes"]

# Above this a session is made from files: bytes would need the weights two or three times in memory.
_MAX_PROTO_BYTES = 1_500_000_000


def create_session(
    model: ir.Model,
    *,
    extra_outputs: Sequence[str] = (),
    sess_options: "onnxruntime.SessionOptions | None" = None,
    providers: Sequence[Any] = ("CPUExecutionProvider",),
    optimize: bool = True,
    keep_freed_memory: bool = True,
    max_proto_bytes: int = _MAX_PROTO_BYTES,
    **session_arguments: Any,
) -> "onnxruntime.InferenceSession":
    """Make an onnxruntime session of a model.

    Args:
        model: The model; it is not changed.
        extra_outputs: Tensors of the main graph to return as well, after the model's own outputs; one that is
            an output already is not doubled.
        sess_options: The user's session options, for example with custom-operator libraries; used as given.
        providers: Execution providers in order of preference.
        optimize: Whether onnxruntime may optimise the graph; ignored where `sess_options` is given.
        keep_freed_memory: Whether onnxruntime keeps what it took for tensors of a run, in steps of powers of two, for
            the next run; ignored where `sess_options` is given.
        max_proto_bytes: Above this size of all weights the session is made from temporary files.
        session_arguments: More for onnxruntime.InferenceSession.

    Returns:
        The session.

    Raises:
        ParameterError: `extra_outputs` names a tensor that the main graph does not have.
        ModelError: onnxruntime refuses the model.
    """
    import onnxruntime

    exposed = _with_outputs(model, extra_outputs) if extra_outputs else model
    options = sess_options
    if options is None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = keep_freed_memory
        if not optimize:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        if stored_bytes(exposed) <= max_proto_bytes:
            data = to_bytes(clone_self_contained(exposed))
            return onnxruntime.InferenceSession(data, options, providers=list(providers), **session_arguments)
        with tempfile.TemporaryDirectory(prefix="amct_", ignore_cleanup_errors=True) as folder:
            path = Path(folder) / "model.onnx"
            save_ir(exposed, path, external_threshold_bytes=0)
            return onnxruntime.InferenceSession(str(path), options, providers=list(providers), **session_arguments)
    except ModelError:
        raise
    except Exception as error:  # onnxruntime has an exception class for each of its status codes
        raise ModelError(
            f"onnxruntime {onnxruntime.__version__} cannot run the model: {error}.",
            remedy="Check that this version has all its operators and its opset "
            f"({model.opset_imports.get('', 'none')}), or register a library of custom operators "
            "in the session options.",
        ) from error


def session_bytes(model: ir.Model, extra_outputs: Sequence[str] = (), max_proto_bytes: int = _MAX_PROTO_BYTES) -> bytes:
    """A model with further outputs as bytes, for sessions in other processes.

    Raises:
        ParameterError: `extra_outputs` names a tensor that the main graph does not have, or the weights are too large
            for one message.
    """
    if stored_bytes(model) > max_proto_bytes:
        raise ParameterError(
            f"The model's weights take more than the {max_proto_bytes} bytes that can be sent to other processes.",
            remedy='Calibrate in this process, or with backend="threading".',
        )
    return to_bytes(clone_self_contained(_with_outputs(model, extra_outputs)))


def session_from_bytes(data: bytes, *, num_threads: int = 0) -> "onnxruntime.InferenceSession":
    """A session on the CPU from `session_bytes`; 0 threads leave their number to onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = num_threads
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _with_outputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    copy = clone_ir(model)
    values = {value.name: value for node in copy.graph for value in node.outputs}
    values |= {value.name: value for value in (*copy.graph.inputs, *copy.graph.initializers.values())}
    for name in dict.fromkeys(names):
        value = values.get(name)
        if value is None:
            raise ParameterError(
                f"The 'extra_outputs' parameter of create_session must name tensors of the main graph. "
                f"Got {name!r}, which is none."
            )
        if not value.is_graph_output():
            copy.graph.outputs.append(value)
    return copy
