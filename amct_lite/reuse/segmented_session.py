"""A candidate's session: in segments where it can be, and a plain one for whatever else is asked of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from amct_lite.graph.segments import Segment
from amct_lite.reuse.segment_runner import SegmentRunner

__all__ = ["SegmentedSession"]


class SegmentedSession:
    """What `amct_lite.InferenceSession` asks of onnxruntime's session."""

    def __init__(self, segments: Sequence[Segment], runner: SegmentRunner, open_plain: Callable[[], Any]) -> None:
        """Open a model.

        Args:
            segments: All of it.
            runner: Runs them.
            open_plain: Opens the same model as a plain session.
        """
        self._segments, self._runner, self._open_plain = segments, runner, open_plain
        self._round = runner.new_round()
        self._plain: Any = None
        # Its own for as long as it lives, whether the runner has room for them or not.
        self._sessions: dict[str, Any] = {}

    def get_inputs(self) -> list[Any]:
        """See onnxruntime."""
        return list(self._session_of(self._segments[0]).get_inputs())

    def get_outputs(self) -> list[Any]:
        """See onnxruntime."""
        return list(self._session_of(self._segments[-1]).get_outputs())

    def get_providers(self) -> list[str]:
        """See onnxruntime."""
        return list(self._session_of(self._segments[0]).get_providers())

    def get_modelmeta(self) -> Any:
        """See onnxruntime."""
        return self._plain_session().get_modelmeta()

    def run(self, output_names: Sequence[str], input_feed: Mapping[str, Any], run_options: Any = None) -> list[Any]:
        """See onnxruntime."""
        known = set(output_names) <= set(self._segments[-1].outputs)
        arrays = all(isinstance(a, np.ndarray) and a.dtype.kind in "fiub" for a in input_feed.values())
        if run_options is not None or not known or not arrays or set(input_feed) != set(self._segments[0].inputs):
            return list(self._plain_session().run(list(output_names), dict(input_feed), run_options))
        values = self._runner.run(self._segments, input_feed, self._round, self._session_of)
        return [values[name] for name in output_names]

    def _session_of(self, segment: Segment) -> Any:
        if segment.digest not in self._sessions:
            self._sessions[segment.digest] = self._runner.session(segment, self._round)
        return self._sessions[segment.digest]

    def _plain_session(self) -> Any:
        if self._plain is None:
            self._plain = self._open_plain()
        return self._plain
