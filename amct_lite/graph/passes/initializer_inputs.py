"""Old files list their weights among the graph inputs because they had to."""

import onnx_ir as ir

__all__ = ["drop_initializer_inputs"]

# From this IR version on, an initializer among the inputs is meant: a default that a caller may override.
_FIRST_IR_VERSION_WITH_DEFAULTS = 4


def drop_initializer_inputs(model: ir.Model) -> bool:
    """Take the initializers out of the graph inputs of a file older than IR version 4.

    Precondition: none.
    Postcondition: the IR version is 4 or newer; an initializer that is an input is an overridable default.

    Args:
        model: The model, changed in place.

    Returns:
        Whether the model was changed.
    """
    if model.ir_version >= _FIRST_IR_VERSION_WITH_DEFAULTS:
        return False
    graph = model.graph
    kept = [value for value in graph.inputs if not value.is_initializer()]
    graph.inputs.clear()
    graph.inputs.extend(kept)
    model.ir_version = _FIRST_IR_VERSION_WITH_DEFAULTS
    return True
