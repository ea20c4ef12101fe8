"""How far the network's output moves when weights change."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.graph.cloning import clone_ir
from amct_lite.graph.constants import replace_array
from amct_lite.graph.model import Model
from amct_lite.graph.runtime import create_session
from amct_lite.refine.samples import Feed

__all__ = ["OutputChange"]

Outputs = Sequence[npt.NDArray[Any]]

# Samples on which outputs are compared: ranks of layers need few.
COMPARED_SAMPLES = 48


class OutputChange:
    """Compares a network's outputs with those of its float original.

    Attributes:
        feeds: The samples on which they are compared.
    """

    def __init__(
        self,
        model: Model,
        feeds: Sequence[Feed],
        *,
        max_samples: int = COMPARED_SAMPLES,
        sess_options: Any = None,
    ) -> None:
        """Run the original.

        Args:
            model: The float model.
            feeds: Samples.
            max_samples: How many of them are used, the first ones.
            sess_options: The user's onnxruntime.SessionOptions.
        """
        self.feeds = _first(feeds, max_samples)
        self._model, self._options = model, sess_options
        self._original = self._outputs({})

    def of_weight(self, name: str, values: npt.NDArray[np.float32]) -> float:
        """The change for one initializer's new values: the sum over float outputs of |y - y'|**2 / |y|**2."""
        return _relative_change(self._original, self._outputs({name: values}))

    def _outputs(self, weights: Mapping[str, npt.NDArray[np.float32]]) -> list[Outputs]:
        graph = clone_ir(self._model.ir)
        for name, array in weights.items():
            replace_array(graph.graph.initializers[name], array)
        session = create_session(graph, sess_options=self._options)
        return [session.run(None, feed) for feed in self.feeds]


def _relative_change(before: Sequence[Outputs], after: Sequence[Outputs]) -> float:
    total = 0.0
    for index in range(len(before[0])):
        if not np.issubdtype(before[0][index].dtype, np.floating):
            continue
        signal = sum(float(np.sum(np.square(values[index], dtype=np.float64))) for values in before)
        noise = sum(
            float(np.sum(np.square(a[index].astype(np.float64) - b[index]))) for a, b in zip(after, before, strict=True)
        )
        total += noise / signal if signal > 0.0 else 0.0
    return total


def _first(feeds: Sequence[Feed], max_samples: int) -> list[Feed]:
    taken, count = [], 0
    for feed in feeds:
        taken.append(feed)
        count += next(iter(feed.values())).shape[0] if feed else 1
        if count >= max_samples:
            break
    return taken
