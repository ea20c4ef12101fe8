"""The reference executor of Ascend deploy models, for the tests of the export forms."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.ascend_reference.onnx_deploy import run_deploy_model


@pytest.fixture(scope="session")
def run_ascend() -> Callable[[Path, Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    return run_deploy_model
