"""Ctrl-C ends a sweep at the next operator, not at the end of the batch or the data."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

# One batch takes a minute or more: 300 products of matrices of 2048 x 2048.
SWEEP = """
import signal
import sys
import numpy as np
from amct_lite.calibration.sweep import sweep
from amct_lite.graph import load_model

# A shell without job control has its background jobs, and so this process, ignore interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

def batches():
    for number in range(4):
        print("batch", number, flush=True)
        yield np.ones((2048, 2048), np.float32)

model = load_model(sys.argv[1])
sweep(model, model.layers[-1:], batches(), 4)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_an_interrupt_ends_the_batch_that_is_running(write_network: Callable[..., Path]) -> None:
    body = "\n".join(f"x{i + 1} = MatMul (x{i}, w)" for i in range(300))
    text = f"g (float[2048,2048] x0) => (float[2048,2048] x300) {{ {body} }}"
    path = write_network(text, {"w": np.eye(2048, dtype=np.float32)})
    process = subprocess.Popen(
        [sys.executable, "-c", SWEEP, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["batch 0\n", "batch 1\n"]
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode == -signal.SIGINT
