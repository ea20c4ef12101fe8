"""Operators in PyTorch give what ONNX Runtime gives, on the node tests that the onnx package ships."""

from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'train'")

import onnx_ir as ir  # noqa: E402
from onnx.backend.test.case.node import collect_testcases  # noqa: E402

from amct_lite.graph.model import Model  # noqa: E402
from amct_lite.learn.operators import OPERATORS  # noqa: E402
from amct_lite.learn.torch_graph import TorchGraph  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the cases that numpy makes

# What is refused by name, and what no network that is trained computes with.
REFUSED = ("training_mode", "maxpool_with_argmax")
NO_TENSORS_TO_TRAIN = ("string", "sequence", "identity_opt", "empty_set", "uint16", "uint32", "uint64")
# Kinds of operators that ONNX Runtime's CPU has no test for: they are plain copies, or need inputs of other types.
WITHOUT_TESTS = {"Cast"}


@cache
def cases():
    """Operator -> its tests of a single node."""
    found = {}
    for case in collect_testcases(None):
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type in OPERATORS and nodes[0].domain == "":
            found.setdefault(nodes[0].op_type, []).append(case)
    return found


def expected(case, feed):
    """What ONNX Runtime gives, None where its CPU does not have the case."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(case.model.SerializeToString(), options, ["CPUExecutionProvider"])
        return session.run(None, feed)
    except Exception:
        return None


def in_torch(case, feed):
    model = Model(ir.from_proto(case.model), Path("case.onnx"), "", 0, layers=[])
    with torch.no_grad():
        found = TorchGraph(model)(**{name: torch.from_numpy(np.array(value)) for name, value in feed.items()})
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_an_operator_gives_what_onnxruntime_gives(operator):
    compared = Counter()
    for case in cases().get(operator, []):
        if any(part in case.name for part in (*REFUSED, *NO_TENSORS_TO_TRAIN)):
            continue
        for inputs, _ in case.data_sets:
            names = [value.name for value in case.model.graph.input]
            feed = dict(zip(names, inputs, strict=True))
            wanted = expected(case, feed)
            if wanted is None:
                continue
            for ours, theirs in zip(in_torch(case, feed), wanted, strict=True):
                assert tuple(ours.shape) == theirs.shape, case.name
                np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-4, atol=1e-5, err_msg=case.name)
            compared[operator] += 1
    assert compared[operator] or operator in WITHOUT_TESTS
