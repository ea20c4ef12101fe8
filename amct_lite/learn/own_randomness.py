"""Random numbers for libraries that draw from the process's own generators, which are the user's."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["OwnRandomness"]


class OwnRandomness:
    """States of the global generators: stable-baselines3 and PyTorch draw from the process's, which are the user's."""

    def __init__(self, seed: int) -> None:
        import torch

        self._torch = torch
        self._own: Any = None
        with self.used():
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            torch.manual_seed(seed)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Draw from them within a block, on one thread, for which the networks are large enough."""
        theirs, threads = self._states(), self._torch.get_num_threads()
        if self._own is not None:
            self._restore(self._own)
        self._torch.set_num_threads(1)
        try:
            yield
            self._own = self._states()
        finally:
            self._restore(theirs)
            self._torch.set_num_threads(threads)

    def _states(self) -> tuple[Any, Any, Any]:
        return random.getstate(), np.random.get_state(), self._torch.get_rng_state()  # noqa: NPY002

    def _restore(self, states: tuple[Any, Any, Any]) -> None:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        self._torch.set_rng_state(states[2])
