"""Verbs of AMCT's that have nothing to do here, and those that train, which are refused with a pointer."""

import logging
from typing import Any, NoReturn

from amct_lite.errors import UnsupportedVerbError

__all__ = ["TRAINING_VERBS", "set_cpu_mode", "set_gpu_mode", "training_verb"]

_logger = logging.getLogger(__name__)

TRAINING_VERBS = (
    "create_quant_retrain_config",
    "create_quant_retrain_model",
    "save_quant_retrain_model",
    "restore_quant_retrain_model",
    "create_prune_retrain_model",
    "save_prune_retrain_model",
    "create_compressed_retrain_model",
    "save_compressed_retrain_model",
)
"""What amct_caffe and amct_pytorch have for training with quantization or pruning in the network."""


def set_cpu_mode() -> None:
    """Quantize weights on the CPU, as always here."""


def set_gpu_mode() -> None:
    """Accepted so that AMCT's scripts run: weights are quantized on the CPU all the same, which gives the same numbers.

    In AMCT too it only decides where weights are calibrated.
    """
    _logger.info("set_gpu_mode: weights are quantized on the CPU, which gives the same numbers.")


def training_verb(name: str) -> Any:
    """A function of that name that says where training is, and what to do without it."""

    def refuse(*_arguments: Any, **_keywords: Any) -> NoReturn:
        raise UnsupportedVerbError(
            f"{name} trains with quantization in the network, which the verbs of amct_lite do not: that is for the"
            " learners of amct_lite.learn.",
            remedy="For int8 take amct_lite.learn.EightBitLearner, for fewer bits the other learners (docs/learn.md);"
            " or give a network trained elsewhere with QuantizeLinear and DequantizeLinear to convert_qat_model.",
        )

    refuse.__name__ = refuse.__qualname__ = name
    return refuse
