"""Ready-made evaluators for `amct_lite.auto_nuq`: give data and a limit, no code to write.

With labels `ClassificationEvaluator` measures accuracy; without, `AgreementEvaluator` and
`DivergenceEvaluator` compare with the float network. The data is `ArrayData` (arrays or an npz file),
`ImageData` (image files), or any object with the three members of `DataSource`.
"""

from amct_lite.evaluators.agreement import AgreementEvaluator
from amct_lite.evaluators.classification import ClassificationEvaluator
from amct_lite.evaluators.data import ArrayData, Batches, DataSource
from amct_lite.evaluators.divergence import DivergenceEvaluator
from amct_lite.evaluators.images import ImageData, ImagePreprocessing

__all__ = [
    "AgreementEvaluator",
    "ArrayData",
    "Batches",
    "ClassificationEvaluator",
    "DataSource",
    "DivergenceEvaluator",
    "ImageData",
    "ImagePreprocessing",
]
