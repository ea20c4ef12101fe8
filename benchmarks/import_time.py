"""Time of `import amct_lite`, and which heavy packages it leaves for later.

Shows that the import takes less than 0.7 s: the verbs load what they need at their first use. Each run is a process
of its own; Python's own start is measured as well. No data. Command, from the checkout's root:

    python -m benchmarks.import_time
"""

import statistics
import subprocess
import sys
import time

from benchmarks.table import print_table

REPEATS = 11
HEAVY = ("numpy", "onnx", "onnx_ir", "onnxruntime", "sklearn", "pydantic", "rich", "typer", "google.protobuf")

STATEMENTS = {
    "Python alone": "pass",
    "import amct_lite": "import amct_lite",
    "from amct_lite.auto_nuq import AutoNuqEvaluatorBase": "from amct_lite.auto_nuq import AutoNuqEvaluatorBase",
    "the verbs, at first use": "import amct_lite; amct_lite.create_quant_config",
}


def main() -> None:
    """Print the median wall time of each statement, and the heavy packages it loads."""
    seconds: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for _ in range(REPEATS):
        for name, statement in STATEMENTS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            seconds[name].append(time.perf_counter() - start)
    print_table(
        ["statement", "median s", "heavy packages loaded"],
        [
            [name, f"{statistics.median(s):.3f}", ", ".join(loaded(STATEMENTS[name])) or "none"]
            for name, s in seconds.items()
        ],
    )


def loaded(statement: str) -> list[str]:
    """The heavy packages in memory after a statement."""
    script = f"{statement}\nimport sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()


if __name__ == "__main__":
    main()
