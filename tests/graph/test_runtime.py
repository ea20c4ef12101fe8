import subprocess
import sys
from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest

from amct_lite.errors import ModelError, ParameterError
from amct_lite.graph import create_session

TEXT = "g (float[N,4] x) => (float[N,4] y) { a = MatMul(x, w) y = Relu(a) }"


@pytest.fixture
def weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"w": rng.normal(size=(4, 400)).astype(np.float32)[:, :4]}


def test_extra_outputs_follow_the_models_own(make_graph: Callable, weights: dict[str, np.ndarray]) -> None:
    model = make_graph(TEXT, weights)
    session = create_session(model, extra_outputs=["a", "y", "a", "w"])
    assert [output.name for output in session.get_outputs()] == ["y", "a", "w"]
    x = np.ones((2, 4), np.float32)
    y, a, w = session.run(None, {"x": x})
    np.testing.assert_allclose(a, x @ w, rtol=1e-5)
    np.testing.assert_array_equal(y, np.maximum(a, 0))
    assert [value.name for value in model.graph.outputs] == ["y"]


def test_unknown_extra_output_is_refused(make_graph: Callable, weights: dict[str, np.ndarray]) -> None:
    with pytest.raises(ParameterError, match="'b'"):
        create_session(make_graph(TEXT, weights), extra_outputs=["b"])


def test_big_model_goes_through_files_that_are_removed(
    make_graph: Callable, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    model = make_graph(TEXT, {"w": np.eye(4, dtype=np.float32)})
    model.graph.initializers["w"].const_value.name = "w"
    session = create_session(model, max_proto_bytes=10)
    assert not list(tmp_path.iterdir())
    x = np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], x)


def test_users_session_options_are_used(make_graph: Callable, weights: dict[str, np.ndarray]) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_prepacking", "1")
    session = create_session(make_graph(TEXT, weights), sess_options=options)
    assert session.get_session_options().get_session_config_entry("session.disable_prepacking") == "1"


def test_operator_unknown_to_onnxruntime_is_a_model_error(make_graph: Callable) -> None:
    with pytest.raises(ModelError, match="cannot run the model") as caught:
        create_session(make_graph("g (float[1] x) => (y) { y = custom.F(x) }"))
    assert "custom operators" in str(caught.value.remedy)


def test_importing_the_room_does_not_import_onnxruntime() -> None:
    code = "import sys, amct_lite.graph; sys.exit('onnxruntime' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
