"""SSD's DetectionOutput in stock ONNX operators: decoding, suppression in each class, the best of each image.

The rows come out as from Caffe: image by image, class by class, by falling score. Equal scores keep the order of the
priors within a class; where keep_top_k cuts among equal scores of several classes, the lower classes win (Caffe leaves
that open). Everything after the sort works on dense arrays of images x classes x candidates, so that the number of
images may be free.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.caffe.network import CaffeLayer
from amct_lite.caffe.translation import Translation, unsupported

__all__ = ["translate_detection_output"]

_LOWEST = float(np.finfo(np.float32).min)


class _Builder:
    """Nodes with constants given as numbers."""

    def __init__(self, translation: Translation, layer: CaffeLayer) -> None:
        self._translation, self._layer = translation, layer

    def __call__(self, op_type: str, *inputs: ir.Value | npt.ArrayLike, **attributes: Any) -> ir.Value:
        """Add a node with one output."""
        return self._translation.node(op_type, [self._value(item) for item in inputs], attributes)

    def pair(self, op_type: str, *inputs: ir.Value | npt.ArrayLike, **attributes: Any) -> tuple[ir.Value, ir.Value]:
        """Add a node with two outputs."""
        values = [self._value(item) for item in inputs]
        node = self._translation.node(op_type, values, attributes, num_outputs=2).producer()
        assert node is not None
        return node.outputs[0], node.outputs[1]

    def _value(self, item: ir.Value | npt.ArrayLike) -> ir.Value:
        if isinstance(item, ir.Value):
            return item
        return self._translation.constant(self._layer, "constant", item)


@dataclass(frozen=True)
class _Sizes:
    """What the layer's shapes and parameters come to."""

    priors: int
    classes: int
    labels: tuple[int, ...]
    candidates: int
    kept: int
    share_location: bool

    @property
    def total(self) -> int:
        """Candidates of one image."""
        return len(self.labels) * self.candidates


def translate_detection_output(translation: Translation, layer: CaffeLayer) -> None:
    """Add a DetectionOutput layer: bottoms locations, confidences, priors; top 1 x 1 x detections x 7.

    A row is (image, label, score, xmin, ymin, xmax, ymax). Where no image has a detection, there is one row for each
    image, all -1 after the first number.

    Args:
        translation: The graph.
        layer: The layer.

    Raises:
        ModelError: A parameter is not supported, or the bottoms do not fit each other.
    """
    sizes = _check(translation, layer)
    add = _Builder(translation, layer)
    locations, confidences, priors = (translation.value(bottom) for bottom in layer.bottoms)
    boxes = _decode(add, layer, sizes, locations, priors)
    scores, boxes = _candidates(add, sizes, confidences, boxes)
    scores = _suppress(add, layer, sizes, scores, boxes)
    rows = _rows(add, sizes, scores, boxes)
    translation.bind(layer.tops[0], _or_nothing(add, rows, confidences), (1, 1, sizes.total, 7))
    # How many rows there are is known at run time only.
    translation.value(layer.tops[0]).shape = ir.Shape([1, 1, f"{layer.tops[0]}_rows", 7])


def _check(translation: Translation, layer: CaffeLayer) -> _Sizes:
    params = layer.params.detection_output_param
    if len(layer.bottoms) != 3 or params.nms_param.eta != 1:
        raise unsupported(
            layer,
            f"{len(layer.bottoms)} bottoms, and an nms_param.eta of {params.nms_param.eta:g}.",
            "DetectionOutput is supported with three bottoms and eta 1; cut the prototxt before this layer.",
        )
    classes, num_priors = params.num_classes, (translation.shape(layer.bottoms[2])[2] or 0) // 4
    found = [int(np.prod([size or 1 for size in translation.shape(b)[1:]])) for b in layer.bottoms[:2]]
    wanted = [num_priors * 4 * (1 if params.share_location else classes), num_priors * classes]
    if found != wanted or not num_priors:
        raise unsupported(
            layer,
            f"{num_priors} priors and {classes} classes need {wanted[0]} locations and {wanted[1]} confidences; "
            f"there are {found[0]} and {found[1]}.",
            "Correct num_classes, share_location, or the layers before.",
        )
    labels = tuple(label for label in range(classes) if label != params.background_label_id)
    candidates = num_priors
    if params.nms_param.HasField("top_k") and params.nms_param.top_k > -1:
        candidates = min(candidates, params.nms_param.top_k)
    if not labels or not candidates or not params.keep_top_k:
        raise unsupported(
            layer, "no class, nms_param.top_k or keep_top_k leaves anything to detect.", "Correct the parameters."
        )
    total = len(labels) * candidates
    kept = min(params.keep_top_k, total) if params.keep_top_k > -1 else total
    return _Sizes(num_priors, classes, labels, candidates, kept, params.share_location)


def _decode(add: _Builder, layer: CaffeLayer, sizes: _Sizes, locations: ir.Value, priors: ir.Value) -> ir.Value:
    """Boxes (xmin, ymin, xmax, ymax), float32, images x priors x 4 or images x labels x priors x 4.

    CORNER adds the locations to the corners, CORNER_SIZE after taking them times the prior's size, CENTER_SIZE moves
    the centre by them times the size and grows the size by their exponential. They are taken times the variances
    before, unless variance_encoded_in_target.
    """
    params = layer.params.detection_output_param
    code = params.DESCRIPTOR.fields_by_name["code_type"].enum_type.values_by_number[params.code_type].name
    if sizes.share_location:
        offsets = add("Reshape", locations, [-1, sizes.priors, 4])
    else:
        offsets = add("Reshape", locations, [-1, sizes.priors, sizes.classes, 4])
        offsets = add("Gather", add("Transpose", offsets, perm=[0, 2, 1, 3]), list(sizes.labels), axis=1)
    table = add("Reshape", priors, [2, sizes.priors, 4])
    corners, variances = (add("Gather", table, index, axis=0) for index in (0, 1))
    if not params.variance_encoded_in_target:
        offsets = add("Mul", offsets, variances)
    if code == "CORNER":
        return add("Add", corners, offsets)
    low, high = add.pair("Split", corners, axis=1)
    extent = add("Sub", high, low)
    if code == "CORNER_SIZE":
        return add("Add", corners, add("Mul", offsets, add("Concat", extent, extent, axis=1)))
    move, grow = add.pair("Split", offsets, axis=-1)
    centre = add("Add", add("Mul", move, extent), add("Mul", add("Add", low, high), 0.5))
    half = add("Mul", add("Mul", add("Exp", grow), extent), 0.5)
    return add("Concat", add("Sub", centre, half), add("Add", centre, half), axis=-1)


def _candidates(add: _Builder, sizes: _Sizes, confidences: ir.Value, boxes: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The candidates of each label by falling score, and their boxes.

    Returns:
        Scores, (images x labels) x 1 x candidates, and boxes, (images x labels) x candidates x 4.
    """
    scores = add("Reshape", confidences, [-1, sizes.priors, sizes.classes])
    scores = add("Transpose", scores, perm=[0, 2, 1])
    if len(sizes.labels) != sizes.classes:
        scores = add("Gather", scores, list(sizes.labels), axis=1)
    # TopK leaves equal scores in their order, as Caffe's stable sort does.
    scores, order = add.pair("TopK", scores, [sizes.candidates], axis=2)
    if sizes.share_location:
        boxes = add("GatherND", boxes, add("Reshape", order, [-1, sizes.total, 1]), batch_dims=1)
        boxes = add("Reshape", boxes, [-1, sizes.candidates, 4])
    else:
        boxes = add("Reshape", boxes, [-1, sizes.priors, 4])
        boxes = add("GatherND", boxes, add("Reshape", order, [-1, sizes.candidates, 1]), batch_dims=1)
    return add("Reshape", scores, [-1, 1, sizes.candidates]), boxes


def _suppress(add: _Builder, layer: CaffeLayer, sizes: _Sizes, scores: ir.Value, boxes: ir.Value) -> ir.Value:
    """Scores, images x (labels x candidates), of the detections; the others are the lowest number."""
    params = layer.params.detection_output_param
    # A box turned inside out overlaps nothing in Caffe, and ONNX would turn it back: make it a line.
    low, high = add.pair("Split", boxes, axis=-1)
    safe = add("Concat", low, add("Max", low, high), axis=-1)
    limits: list[npt.ArrayLike] = [[sizes.candidates], np.array([min(params.nms_param.nms_threshold, 1)], np.float32)]
    if params.HasField("confidence_threshold"):
        limits.append(np.array([params.confidence_threshold], np.float32))
    # Each label of an image counts as a batch of its own, since its candidates have their own boxes.
    selected = add("NonMaxSuppression", safe, scores, *limits)
    dense = add("ScatterND", _lowest(add, scores), selected, add("GatherND", scores, selected))
    dense = add("Reshape", dense, [-1, sizes.total])
    if sizes.kept == sizes.total:
        return dense
    values, positions = add.pair("TopK", dense, [sizes.kept], axis=1)
    return add("ScatterElements", _lowest(add, dense), positions, values, axis=1)


def _lowest(add: _Builder, like: ir.Value) -> ir.Value:
    return add("ConstantOfShape", add("Shape", like), value=ir.tensor(np.array([_LOWEST], np.float32)))


def _rows(add: _Builder, sizes: _Sizes, scores: ir.Value, boxes: ir.Value) -> ir.Value:
    """Detections x 7: image, label, score and box of each score above the lowest number."""
    # Row by row, NonZero goes through an image's labels and, in a label, through the falling scores.
    found = add("Transpose", add("NonZero", add("Greater", scores, _LOWEST)), perm=[1, 0])
    image, position = add.pair("Split", found, axis=1)
    labels = add("Gather", np.array(sizes.labels, np.float32), add("Div", position, sizes.candidates))
    score = add("Unsqueeze", add("GatherND", scores, found), [1])
    box = add("GatherND", add("Reshape", boxes, [-1, sizes.total, 4]), found)
    return add("Concat", add("Cast", image, to=int(ir.DataType.FLOAT)), labels, score, box, axis=1)


def _or_nothing(add: _Builder, rows: ir.Value, confidences: ir.Value) -> ir.Value:
    """1 x 1 x detections x 7, where none at all is a row of image, -1, ... for each image."""
    images = add("Gather", add("Shape", confidences), [0])
    empty = add("Equal", add("Gather", add("Shape", rows), [0]), [0])
    missing = add("Mul", images, add("Cast", empty, to=int(ir.DataType.INT64)))
    numbers = add("NonZero", add("ConstantOfShape", missing, value=ir.tensor(np.array([1], np.float32))))
    first = add("Cast", add("Transpose", numbers, perm=[1, 0]), to=int(ir.DataType.FLOAT))
    nothing = add("Pad", first, [0, 0, 0, 6], np.float32(-1))
    return add("Reshape", add("Concat", rows, nothing, axis=0), [1, 1, -1, 7])
