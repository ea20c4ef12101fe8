"""What pytest leaves out: doctests of modules whose optional package is not there."""

from importlib.util import find_spec

_NEED_TORCH = ["amct_lite/learn/*", "tests/learn/killed_training.py", "tests/learn/plain_learner.py"]

# Their tests, in tests/learn, are skipped with the reason.
collect_ignore_glob = [] if find_spec("torch") else _NEED_TORCH
