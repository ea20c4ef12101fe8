"""What pytest leaves out: doctests of modules whose optional package is not there."""

from importlib.util import find_spec

# Their tests, in tests/learn, are skipped with the reason.
collect_ignore_glob = [] if find_spec("torch") else ["amct_lite/learn/*"]
