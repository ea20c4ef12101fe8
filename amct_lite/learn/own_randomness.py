"""Random numbers for libraries that draw from the process's own generators, which are the user's."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["OwnRandomness", "random_states", "restore_random_states"]


class OwnRandomness:
    """States of the global generators: stable-baselines3 and PyTorch draw from the process's, which are the user's."""

    def __init__(self, seed: int, *, threads: int | None = 1) -> None:
        """Begin from a seed.

        Args:
            seed: Of all generators.
            threads: How many PyTorch uses within `used`, one being enough for small networks; None leaves them.
        """
        import torch

        self._torch = torch
        self._threads = threads
        self._own: Mapping[str, Any] | None = None
        with self.used():
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            torch.manual_seed(seed)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Draw from them within a block."""
        theirs, threads = random_states(), self._torch.get_num_threads()
        if self._own is not None:
            restore_random_states(self._own)
        if self._threads is not None:
            self._torch.set_num_threads(self._threads)
        try:
            yield
            self._own = random_states()
        finally:
            restore_random_states(theirs)
            self._torch.set_num_threads(threads)


def random_states() -> dict[str, Any]:
    """The states of Python's, numpy's and PyTorch's generators, of plain types and tensors."""
    import torch

    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (kind, np.asarray(keys).tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Bring the generators back to states that `random_states` gave."""
    import torch

    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
