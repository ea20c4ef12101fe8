"""amct_lite: make trained Caffe and ONNX networks small and integer-ready, and prove that they still work.

The verbs are AMCT's: `create_quant_config`, `init`, `calibrate`, `quantize_model`, `save_model`, `auto_nuq`,
`accuracy_based_auto_calibration`, `convert_model`, `convert_qat_model`; `compress` goes from a float file to a small
one in one step, and `compare` says which layer loses what.
They are loaded at first use, so that `import amct_lite` stays fast.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from amct_lite.auto_calibration import AutoCalibrationEvaluatorBase, accuracy_based_auto_calibration
from amct_lite.auto_nuq import AutoNuqEvaluatorBase, auto_nuq
from amct_lite.errors import AmctError
from amct_lite.version import VERSION as __version__  # noqa: N811 - the name that tools look for

if TYPE_CHECKING:
    from amct_lite.api import calibrate, explain_ranges, init
    from amct_lite.comparison import LayerTable, compare
    from amct_lite.compression import Compressed, compress
    from amct_lite.conversion import convert_model, convert_qat_model
    from amct_lite.editions import create_quant_config, quantize_model, save_model
    from amct_lite.observing_operators import AMCT_SO as AMCT_SO
    from amct_lite.other_verbs import set_cpu_mode, set_gpu_mode
    from amct_lite.search.result import SearchResult
    from amct_lite.session import InferenceSession
    from amct_lite.tensor_decompose import auto_decomposition
    from amct_lite.weight_compression import Candidates, candidates

__all__ = [
    "AmctError",
    "AutoCalibrationEvaluatorBase",
    "AutoNuqEvaluatorBase",
    "Candidates",
    "Compressed",
    "InferenceSession",
    "LayerTable",
    "SearchResult",
    "__version__",
    "accuracy_based_auto_calibration",
    "auto_decomposition",
    "auto_nuq",
    "calibrate",
    "candidates",
    "compare",
    "compress",
    "convert_model",
    "convert_qat_model",
    "create_quant_config",
    "explain_ranges",
    "init",
    "quantize_model",
    "save_model",
    "set_cpu_mode",
    "set_gpu_mode",
]

_LOADED_AT_FIRST_USE = {
    "AMCT_SO": "amct_lite.observing_operators",
    "Candidates": "amct_lite.weight_compression",
    "Compressed": "amct_lite.compression",
    "InferenceSession": "amct_lite.session",
    "LayerTable": "amct_lite.comparison",
    "SearchResult": "amct_lite.search.result",
    "auto_decomposition": "amct_lite.tensor_decompose",
    "calibrate": "amct_lite.api",
    "candidates": "amct_lite.weight_compression",
    "compare": "amct_lite.comparison",
    "compress": "amct_lite.compression",
    "convert_model": "amct_lite.conversion",
    "convert_qat_model": "amct_lite.conversion",
    "create_quant_config": "amct_lite.editions",
    "explain_ranges": "amct_lite.api",
    "init": "amct_lite.api",
    "quantize_model": "amct_lite.editions",
    "save_model": "amct_lite.editions",
    "set_cpu_mode": "amct_lite.other_verbs",
    "set_gpu_mode": "amct_lite.other_verbs",
}


# Modules that AMCT's scripts reach through the package, without an import of their own.
_MODULES = ("tensor_decompose",)

if "AMCT_LOG_LEVEL" in os.environ or "AMCT_LOG_FILE_LEVEL" in os.environ:
    importlib.import_module("amct_lite.logs").follow_environment()


def __getattr__(name: str) -> Any:
    """Load a public name from its module at first use (PEP 562)."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if "retrain" in name:
        other_verbs = importlib.import_module("amct_lite.other_verbs")
        if name in other_verbs.TRAINING_VERBS:
            return other_verbs.training_verb(name)
    if name not in _LOADED_AT_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LOADED_AT_FIRST_USE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
