"""The config of target `onnxruntime` with AMCT's ranges and rounding, for figures about something else.

Its own defaults choose weights on samples: that takes longer than a sweep, and no NUQ and no search does it.
"""

import json
from pathlib import Path

import amct_lite as amct

__all__ = ["write_plain_config"]


def write_plain_config(config_file: Path, model_file: Path, *, batch_num: int = 1) -> None:
    """Write the default config with `act_algo` "ifmr" and `rounding` "nearest" in every layer.

    Args:
        config_file: Where to write.
        model_file: The float network.
        batch_num: Batches that calibration reads.
    """
    amct.create_quant_config(config_file, model_file, batch_num=batch_num, target="onnxruntime")
    config = json.loads(config_file.read_text())
    for block in config.values():
        if isinstance(block, dict) and "activation_quant_params" in block:
            block["activation_quant_params"] = {"act_algo": "ifmr"}
            block.get("weight_quant_params", {}).pop("rounding", None)
    config_file.write_text(json.dumps(config, indent=4))
