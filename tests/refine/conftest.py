"""Written models on unseen digits."""

import numpy as np
import onnxruntime
import pytest

from amct_lite.samples.digits.data import load_split


@pytest.fixture(scope="session")
def run_digits():
    """File, whether onnxruntime may optimize -> the scores of the validation images, float64."""
    images = load_split().validation.images

    def run(file, *, optimize=True):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if not optimize:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        return session.run(None, {"image": images})[0].astype(np.float64)

    return run
