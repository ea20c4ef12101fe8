"""AMCT's verbs that do nothing here, and those that train."""

import pytest

import amct_lite as amct
from amct_lite.errors import UnsupportedVerbError
from amct_lite.other_verbs import TRAINING_VERBS


def test_the_modes_of_the_device_are_accepted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="amct_lite"):
        amct.set_cpu_mode()
        assert caplog.text == ""
        amct.set_gpu_mode()
    assert "weights are quantized on the CPU" in caplog.text


@pytest.mark.parametrize("verb", TRAINING_VERBS)
def test_verbs_that_train_are_refused_with_what_to_do_instead(verb: str) -> None:
    function = getattr(amct, verb)
    assert function.__name__ == verb
    with pytest.raises(UnsupportedVerbError, match=rf"{verb} trains.*amct_lite\.learn.*convert_qat_model"):
        function("config.json", "net.prototxt", weights_file="net.caffemodel")


def test_a_name_that_amct_has_not_either_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'retrain_everything'"):
        _ = amct.retrain_everything  # type: ignore[attr-defined]
