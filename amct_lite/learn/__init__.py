"""What learns with PyTorch: fine-tuning of quantized networks, and the agent of the search strategy "ddpg".

`import amct_lite.learn` is light: names are loaded at first use, and PyTorch with them (the extra `train`).
"""

import importlib
from typing import TYPE_CHECKING, Any

from amct_lite.errors import OptionalDependencyError

if TYPE_CHECKING:
    from amct_lite.learn.batches import ArrayBatches
    from amct_lite.learn.bit_allocation import BitsFound, allocate_bits
    from amct_lite.learn.eight_bit_learner import EightBitLearner
    from amct_lite.learn.learner import Learner
    from amct_lite.learn.losses import Distillation
    from amct_lite.learn.n2uq_learner import N2UQLearner
    from amct_lite.learn.nonuniform_learner import NonUniformLearner
    from amct_lite.learn.training import Epoch
    from amct_lite.learn.uniform_learner import UniformLearner

__all__ = [
    "ArrayBatches",
    "BitsFound",
    "Distillation",
    "EightBitLearner",
    "Epoch",
    "Learner",
    "N2UQLearner",
    "NonUniformLearner",
    "UniformLearner",
    "allocate_bits",
]

_LOADED_AT_FIRST_USE = {
    "ArrayBatches": "batches",
    "BitsFound": "bit_allocation",
    "Distillation": "losses",
    "EightBitLearner": "eight_bit_learner",
    "Epoch": "training",
    "Learner": "learner",
    "N2UQLearner": "n2uq_learner",
    "NonUniformLearner": "nonuniform_learner",
    "UniformLearner": "uniform_learner",
    "allocate_bits": "bit_allocation",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module at first use (PEP 562)."""
    if name not in _LOADED_AT_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_LOADED_AT_FIRST_USE[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise OptionalDependencyError(
            f"amct_lite.learn.{name} trains with PyTorch, which is not installed.",
            remedy="Run: pip install amct-lite[train]",
        ) from error


def __dir__() -> list[str]:
    return sorted(__all__)
