"""Compression of weights alone, by other tools and by amct_lite: accuracy against size.

The 128 photos of imagenet500 at positions 1, 3, ... 255 calibrate what can be calibrated (amct_lite and onnxsim's
SqueezeLLM), the other 372 evaluate. *bytes* is the size of the ONNX file without weights that no node reads. The
coremltools and uniform rows have no such file, and give the float file's size with its weights replaced by coremltools'
own `weight.bin`, or by codes, scales and zero points as packed. *bits/weight* is everything in these bytes beyond the
float file's graph and biases. *float* counts the layers whose weights the tool left float (16 bits in coremltools'
rows, 32 elsewhere).

The tools, and what is done to let them show what they can do, stand in `weight_compressors.py`. A tool that is not
installed, or fails, gets a row with the reason. Command, in an environment of its own as the tools bring many packages,
from the checkout's root, about a quarter of an hour on 2 cores (coremltools' grouped k-means takes most of it):

    python -m venv /tmp/peers
    /tmp/peers/bin/pip install -e '.[images]' coremltools onnxsim onnx-shrink-ray
    /tmp/peers/bin/python -m benchmarks.codebook_peers 2> /dev/null
"""

import contextlib
import gzip
import logging
import sys
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx_ir as ir
import typer

import amct_lite as amct
from amct_lite.evaluators import Batches
from amct_lite.graph.reading import read_model_file
from benchmarks.imagenet import (
    EFFICIENTNET_LITE0,
    SQUEEZENET,
    Network,
    calibration_batches,
    compare,
    reporting_photos,
    run_model,
)
from benchmarks.table import print_table
from benchmarks.weight_compressors import (
    Compressed,
    Weight,
    compress_with_coremltools,
    compress_with_onnxsim,
    compress_with_shrink_ray,
    compress_with_uniform_grid,
    quantize_dynamically,
    quantize_matmuls,
    read_weights,
)

CALIBRATION_POSITIONS = range(1, 256, 2)
# The largest power of two that divides the output channels of every layer here; the default, 32, would leave
# SqueezeNet's last layer float, four tenths of its weights.
GROUP_SIZE = 8
HEADINGS = ["bytes", "bits/weight", "float", "top-1 %", "KL", "note"]

Compress = Callable[[Network, Any, Path], Compressed]


def compress_with_amct_lite(network: Network, batches: Any, folder: Path, *, bits: float) -> Compressed:
    """Compress with amct_lite; the size counts external data too."""
    saved = amct.compress(network.model_file, bits=bits, batches=batches).save(folder)
    model_file = saved.files["deploy_model"]
    return Compressed(model_file, read_model_file(model_file).digest.size_bytes)


def without_data(compress: Callable[..., Compressed], *args: Any, **options: Any) -> Compress:
    """A peer that looks at nothing but the model file."""
    return lambda network, _batches, folder: compress(network.model_file, folder, *args, **options)


def squeezellm(network: Network, batches: Any, folder: Path, *, bits: int) -> Compressed:
    """SqueezeLLM of onnxsim, the only one of these peers that looks at activations."""
    feeds = [{"x": batch} for batch in batches]
    function = "quantize_weight_only_squeezellm"
    return compress_with_onnxsim(network.model_file, folder, function, bits=bits, calibration_data=feeds)


def shrink_ray_float(network: Network, _batches: Any, folder: Path) -> Compressed:
    """256 even levels of onnx-shrink-ray kept in float, which only a later compressor makes smaller."""
    compressed = compress_with_shrink_ray(network.model_file, folder, float_quantization=True)
    zipped = len(gzip.compress(compressed.model_file.read_bytes()))
    return replace(compressed, note=f"{zipped:,} with gzip")


PALETTES: dict[str, dict[str, Any]] = {
    "": {},
    ", scales": {"enable_per_channel_scale": True},
    f", groups of {GROUP_SIZE}": {"granularity": "per_grouped_channel", "group_size": GROUP_SIZE},
}
PEERS: dict[str, Compress] = {
    **{f"amct_lite {bits}": partial(compress_with_amct_lite, bits=bits) for bits in (2, 3, 4, 6)},
    **{
        f"coremltools k-means {bits}{name}": without_data(compress_with_coremltools, nbits=bits, **options)
        for bits in (2, 3, 4, 6)
        for name, options in PALETTES.items()
    },
    "onnxsim k-means 4": without_data(compress_with_onnxsim, "quantize_weight_only_kmeans"),
    "onnxsim k-means 3": without_data(compress_with_onnxsim, "quantize_weight_only_kmeans", bits=3),
    **{f"onnxsim SqueezeLLM {bits}": partial(squeezellm, bits=bits) for bits in (3, 4)},
    "onnxsim int4, blocks of 32": without_data(compress_with_onnxsim, "quantize_weight_only_int4"),
    "onnxsim int8, blocks of 32": without_data(compress_with_onnxsim, "quantize_weight_only_int8_block"),
    "onnxsim int8 QDQ": without_data(compress_with_onnxsim, "quantize_weight_only"),
    "shrink-ray integer": without_data(compress_with_shrink_ray),
    "shrink-ray integer, per channel": without_data(compress_with_shrink_ray, per_channel=True),
    "shrink-ray float, 256 levels": shrink_ray_float,
    **{f"onnxruntime MatMulNBits {bits}": without_data(quantize_matmuls, num_bits=bits) for bits in (2, 4, 8)},
    "onnxruntime MatMul int4 QDQ": without_data(quantize_matmuls, num_bits=4, method="qdq"),
    "onnxruntime MatMulNBits 4, k_quant": without_data(quantize_matmuls, num_bits=4, method="k_quant"),
    "onnxruntime MatMulNBits 4, HQQ": without_data(quantize_matmuls, num_bits=4, method="hqq"),
    "onnxruntime quantize_dynamic": without_data(quantize_dynamically),
    **{
        f"uniform {bits}, {name}": without_data(compress_with_uniform_grid, num_bits=bits, clip=clip)
        for bits in (4, 8)
        for name, clip in (("min-max", False), ("MSE clip", True))
    },
}


def main(only: Annotated[str, typer.Option(help="Only peers whose name contains this.")] = "") -> None:
    """Print a table for each network."""
    # onnxruntime's quantizers log a line for each tensor.
    logging.disable(logging.ERROR)
    for network in (SQUEEZENET, EFFICIENTNET_LITE0):
        photos = reporting_photos(network)
        batches = calibration_batches(photos.select(list(CALIBRATION_POSITIONS)))
        photos = photos.select([i for i in range(len(photos)) if i not in CALIBRATION_POSITIONS])
        rows = measure(network, batches, photos, {name: peer for name, peer in PEERS.items() if only in name})
        print_table([network.name, *HEADINGS], rows)


def measure(network: Network, batches: Batches, photos: Any, peers: dict[str, Compress]) -> list[list[str]]:
    """A row for the float network and for each peer."""
    weights = read_weights(ir.load(network.model_file))
    num_weights = sum(weight.array.size for weight in weights)
    float_bytes = network.model_file.stat().st_size
    float_scores = run_model(network.model_file, photos)
    rows = []
    for name, peer in {"float": keep_float, **peers}.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                # Some draw progress bars.
                with contextlib.redirect_stdout(sys.stderr):
                    compressed = peer(network, batches, Path(folder))
                found = compare(float_scores, run_model(compressed.model_file, photos), photos.accepted)
            except Exception as error:  # Whatever a peer raises is its row.
                reason = next(iter(str(error).strip().splitlines()), "")
                rows.append([name, *[""] * 5, textwrap.shorten(f"{type(error).__name__}: {reason}", 100)])
                continue
            rows.append(
                [
                    name,
                    f"{compressed.size_bytes:,}",
                    f"{32 + 8 * (compressed.size_bytes - float_bytes) / num_weights:.2f}",
                    f"{count_left(weights, compressed.model_file)}/{len(weights)}",
                    f"{found.top1:.1f}",
                    f"{found.divergence:.4f}",
                    compressed.note,
                ]
            )
    return rows


def keep_float(network: Network, _batches: Any, _folder: Path) -> Compressed:
    """The float network itself."""
    return Compressed(network.model_file, network.model_file.stat().st_size)


def count_left(weights: list[Weight], model_file: Path) -> int:
    """How many of the weights are constants of the model still, to float16's precision."""
    read = (value.const_value for value in ir.load(model_file).graph.initializers.values() if value.uses())
    floats = {t.numpy().astype(np.float16).tobytes() for t in read if t and t.dtype == ir.DataType.FLOAT}
    # As the model stores them.
    stored = (np.moveaxis(weight.array, 0, weight.layer.output_channel_axis) for weight in weights)
    return sum(array.astype(np.float16).tobytes() in floats for array in stored)


if __name__ == "__main__":
    typer.run(main)
