"""A trained layer as config and record say it."""

from amct_lite.codebook.codebook import Codebook
from amct_lite.codebook.specification import Refine
from amct_lite.files.activation_params import ActivationQuantParams, MovingAverageParams, NuqActivationParams
from amct_lite.files.config import CodebookParams, FloatActivationParams, FloatWeightParams, LayerConfig
from amct_lite.files.record import LayerRecord
from amct_lite.learn.input_quantizer import InputQuantizer
from amct_lite.learn.saving import Learned
from amct_lite.quantize.plan import CODEBOOK_OVERHEAD_BYTES

__all__ = ["learned_layer"]


def learned_layer(codebook: Codebook | None, reason: str, inputs: InputQuantizer | None) -> Learned:
    """What training made of a layer.

    Args:
        codebook: Of its weight; None where no codebook can say what the weight is.
        reason: Why there is none.
        inputs: The grid of its input; None where that stays float.
    """
    if codebook is not None:
        taken, plain = codebook.stored_bytes + CODEBOOK_OVERHEAD_BYTES, 4 * codebook.num_rows * codebook.num_columns
        if taken >= plain:
            reason = f"its codebook with all that decodes it takes {taken} bytes, the float weight {plain}"
            codebook = None
    if codebook is None and inputs is None:
        return Learned(None, None, reason)
    record = LayerRecord(codebook=codebook, float_weights=codebook is None)
    activation: ActivationQuantParams = FloatActivationParams(act_algo="none")
    if inputs is not None:
        grid, used = inputs.grid()
        nuq = NuqActivationParams(target_compression_ratio=len(used) / 256) if used else None
        activation = MovingAverageParams(act_algo="moving_average", averaging_constant=inputs.momentum, nuq=nuq)
        record = LayerRecord(
            scale_d=grid.scale,
            offset_d=grid.offset,
            activation_cluster=used,
            codebook=codebook,
            float_weights=codebook is None,
        )
    if codebook is None:
        return Learned(LayerConfig(activation_quant_params=activation, weight_quant_params=_FLOAT), record, reason)
    params = CodebookParams(
        wts_algo="codebook_quantize",
        num_bits=codebook.code_bits,
        channel_wise=False,
        channels_per_table=codebook.rows_per_table if len(codebook.tables) > 1 else 0,
        level_type=codebook.level_type,
        refine=Refine.NONE,
    )
    return Learned(LayerConfig(activation_quant_params=activation, weight_quant_params=params), record)


_FLOAT = FloatWeightParams(wts_algo="none")
