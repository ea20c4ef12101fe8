"""`python -m amct_lite.samples.open_nsfw.run`: one network from Caffe and from ONNX, quantized with one setting."""

import argparse
from pathlib import Path

import numpy as np

import amct_lite as amct
from amct_lite.files.record import LayerRecord, read_record
from amct_lite.samples.open_nsfw.files import caffe_pair, onnx_file, photos

__all__ = ["largest_difference", "quantize_both", "run"]

BATCH_SIZE = 4
BATCH_NUM = 4


def quantize_both(out: Path) -> tuple[list[LayerRecord], list[LayerRecord]]:
    """Calibrate and save both forms on the same photos; return their records, weighted layers in graph order."""
    prototxt, caffemodel = caffe_pair()
    nchw = photos(BATCH_SIZE * BATCH_NUM)
    batches = [nchw[start : start + BATCH_SIZE] for start in range(0, len(nchw), BATCH_SIZE)]
    nhwc = [np.ascontiguousarray(batch.transpose(0, 2, 3, 1)) for batch in batches]
    found = []
    for name, model, weights, data in (
        ("caffe", prototxt, caffemodel, batches),
        ("onnx", onnx_file(), None, nhwc),
    ):
        config, record = out / name / "config.json", out / name / "record.txt"
        amct.create_quant_config(config, model, weights, batch_num=BATCH_NUM, target="ascend-rank4")
        graph = amct.init(config, model, weights, record)
        amct.calibrate(graph, data)
        amct.save_model(graph, "Both", out / name / "open_nsfw")
        records = read_record(record)
        found.append([records[layer.name] for layer in graph.quantized_layers if layer.weight is not None])
    return found[0], found[1]


def largest_difference(one: list[LayerRecord], other: list[LayerRecord]) -> float:
    """The largest relative difference between the scales of two records, layer by layer."""
    if len(one) != len(other):
        raise ValueError(f"{len(one)} layers against {len(other)}")
    worst = 0.0
    for a, b in zip(one, other, strict=True):
        scales = np.array([[a.scale_d, *a.scale_w], [b.scale_d, *b.scale_w]], np.float64)
        worst = max(worst, float(np.max(np.abs(scales[0] / scales[1] - 1))))
    return worst


def run(out: Path) -> None:
    """Run the sample.

    Args:
        out: Folder for everything that is written.
    """
    prototxt, caffemodel = caffe_pair()
    images = photos(BATCH_SIZE)
    of_caffe = amct.InferenceSession(prototxt, caffemodel).run(None, {"data": images})[0]
    of_onnx = amct.InferenceSession(onnx_file()).run(None, {"input:0": images.transpose(0, 2, 3, 1)})[0]
    print(f"Largest difference between the formats' float outputs: {np.abs(of_caffe - of_onnx).max():.1e}.")
    one, other = quantize_both(out)
    print(f"{len(one)} layers; largest relative difference of a scale: {largest_difference(one, other):.1e}.")
    print(f"Offsets equal in {sum(a.offset_d == b.offset_d for a, b in zip(one, other, strict=True))} layers.")
    print(f"Everything lies in {out}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("open_nsfw_out"))
    run(parser.parse_args().out)
