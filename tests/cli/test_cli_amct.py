"""The commands for those who come from AMCT, in this process: what they print and how they end."""

import pytest
from typer.testing import CliRunner

from amct_lite.cli import app
from amct_lite.errors import AmctError


@pytest.fixture
def command(find_model):
    network = find_model("efficientnet_lite0.onnx")
    return lambda *options: CliRunner().invoke(app, ["candidates", str(network), *options], env={"COLUMNS": "140"})


def test_candidates_shows_every_layer_with_the_reason(command):
    shown = command("--soc", "Ascend310")
    assert shown.exit_code == 0
    assert "3 of 50 layers profit" in shown.stdout
    assert "ratio 1.91" in shown.stdout


def test_candidates_gives_bare_names_for_scripts(command):
    shown = command("--names")
    assert shown.stdout.splitlines() == ["/_blocks.15/_project_conv/Conv", "/_conv_head/Conv", "/_fc/Gemm"]


def test_a_chip_that_is_not_known_ends_with_the_known_ones(command):
    shown = command("--soc", "Ascend1")
    assert shown.exit_code != 0
    assert isinstance(shown.exception, AmctError)
    assert "Ascend310P" in str(shown.exception)
