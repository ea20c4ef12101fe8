"""AMCT's `tensor_quantize`: inputs of operators without weights that are quantized too, as data."""

from collections.abc import Sequence

from pydantic import Field, field_validator

from amct_lite.files.activation_params import ActivationQuantParams, IfmrParams
from amct_lite.files.strict_model import StrictModel

__all__ = ["TensorQuantize", "refuse_repetitions"]


class TensorQuantize(StrictModel):
    """One input of an operator that is no layer: of MaxPool, Add, a Caffe Pooling or Eltwise."""

    layer_name: str = Field(min_length=1, description="The operator.")
    input_index: int = Field(default=0, ge=0, description="Which of its inputs.")
    activation_quant_params: ActivationQuantParams = IfmrParams()

    @property
    def key(self) -> str:
        """AMCT's name for the tensor in the record, "{layer_name}:{input_index}"."""
        return f"{self.layer_name}:{self.input_index}"

    @field_validator("activation_quant_params")
    @classmethod
    def _is_uniform(cls, value: ActivationQuantParams) -> ActivationQuantParams:
        if value.act_algo == "none":
            raise ValueError('act_algo must not be "none": an entry names a tensor to quantize')
        if value.nuq is not None:
            raise ValueError("nuq is for the inputs of layers")
        return value


def refuse_repetitions(entries: Sequence[TensorQuantize]) -> None:
    """Refuse two entries for one tensor.

    Raises:
        ValueError: There are two.
    """
    seen: set[str] = set()
    for entry in entries:
        if entry.key in seen:
            raise ValueError(f"must name each input once, but {entry.key} is there twice")
        seen.add(entry.key)
