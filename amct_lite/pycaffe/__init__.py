"""The part of pycaffe that evaluation scripts use: change `import caffe` to `import amct_lite.pycaffe as caffe`.

Networks run on ONNX Runtime, in phase TEST; training is Caffe's own business.
"""

import warnings

from amct_lite.pycaffe import io, proto
from amct_lite.pycaffe.net import TEST, TRAIN, Net

__all__ = ["TEST", "TRAIN", "Net", "io", "proto", "set_device", "set_mode_cpu", "set_mode_gpu"]


def set_mode_cpu() -> None:
    """Nothing to do: nets run on the CPU unless `Net(..., providers=...)` says otherwise."""


def set_mode_gpu() -> None:
    """Say that nets stay on the CPU; for a GPU give `Net(..., providers=["CUDAExecutionProvider"])`."""
    warnings.warn(
        "amct_lite.pycaffe runs nets on the CPU; for a GPU give Net(..., providers=['CUDAExecutionProvider']).",
        stacklevel=2,
    )


def set_device(device_id: int) -> None:
    """Nothing to do: the device is chosen by `Net(..., providers=...)`.

    Args:
        device_id: Ignored.
    """
