"""What a model is: load, normalise, find layers, run, save."""

from amct_lite.graph.cloning import clone_ir
from amct_lite.graph.layers import find_layers
from amct_lite.graph.model import Model, load_model
from amct_lite.graph.runtime import create_session
from amct_lite.graph.saving import save_ir

__all__ = ["Model", "clone_ir", "create_session", "find_layers", "load_model", "save_ir"]
