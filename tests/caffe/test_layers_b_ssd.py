"""SSD, resizing and refused layers, which Caffe 1.0 lacks: OpenCV's importer and numpy twins are the oracles."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amct_lite.caffe.reading import read_network
from amct_lite.caffe.translate import translate
from amct_lite.errors import ModelError
from amct_lite.files.protos import message_class
from amct_lite.graph.layers import find_layers
from amct_lite.graph.runtime import create_session

some = settings(
    max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def message(name):
    return message_class("caffe", f"caffe.{name}")


def inputs(**shapes):
    text = ""
    for name, shape in shapes.items():
        dims = " ".join(f"dim: {size}" for size in shape)
        text += f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}\n'
    return text


def layer(kind, bottoms, params="", top="y", name=None):
    ends = "".join(f' bottom: "{bottom}"' for bottom in bottoms)
    return f'layer {{ name: "{name or top}" type: "{kind}"{ends} top: "{top}" {params} }}\n'


def read(prototxt, blobs=None):
    """The network with some layers' weights."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.prototxt"
        file.write_text(prototxt)
        network = read_network(file)
    layers = (replace(item, blobs=tuple((blobs or {}).get(item.name, ()))) for item in network.layers)
    return replace(network, layers=tuple(layers))


def ours(prototxt, feed, blobs=None, free_batch=True):
    session = create_session(translate(read(prototxt, blobs), free_batch=free_batch))
    wanted = {item.name for item in session.get_inputs()}
    return session.run(["y"], {name: array for name, array in feed.items() if name in wanted})[0]


def opencv(prototxt, feed, blobs=None):
    cv2 = pytest.importorskip("cv2")
    if int(cv2.__version__.split(".")[0]) > 4:
        pytest.skip("OpenCV 5 has no Caffe importer")
    weights = message("NetParameter")()
    for name, arrays in (blobs or {}).items():
        item = weights.layer.add(name=name, type="Normalize")
        for array in arrays:
            item.blobs.add(data=array.ravel(), shape={"dim": array.shape})
    net = cv2.dnn.readNetFromCaffe(
        np.frombuffer(prototxt.encode(), np.uint8), np.frombuffer(weights.SerializeToString(), np.uint8)
    )
    for name, array in feed.items():
        net.setInput(array, name)
    return net.forward("y")


def values(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def close(got, wanted, tolerance=1e-5):
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * max(float(np.ptp(np.append(wanted, 0))), 1e-3))


# ---- PriorBox ----


def prior_box_twin(
    feature, image, *, minimums, maximums=(), ratios=(), flip=True, clip=False, variance=(0.1,), steps=None, offset=0.5
):
    """Caffe's loops, box by box."""
    step_h, step_w = steps or (image[0] / feature[0], image[1] / feature[1])
    aspects = [1.0]
    for ratio in ratios:
        if all(abs(ratio - aspect) >= 1e-6 for aspect in aspects):
            aspects.append(ratio)
            if flip:
                aspects.append(1 / ratio)
    rows = []
    for row in range(feature[0]):
        for column in range(feature[1]):
            x, y = (column + offset) * step_w, (row + offset) * step_h
            for i, minimum in enumerate(int(size) for size in minimums):
                sizes = [(minimum, minimum)]
                if maximums:
                    sizes.append((np.sqrt(minimum * int(maximums[i])),) * 2)
                sizes += [(minimum * np.sqrt(a), minimum / np.sqrt(a)) for a in aspects[1:]]
                for w, h in sizes:
                    box = [(x - w / 2) / image[1], (y - h / 2) / image[0]]
                    rows.append([*box, (x + w / 2) / image[1], (y + h / 2) / image[0]])
    boxes = np.array(rows)
    if clip:
        boxes = boxes.clip(0, 1)
    variances = np.broadcast_to(variance, boxes.shape)
    return np.stack([boxes.ravel(), variances.ravel()])[None].astype(np.float32)


@st.composite
def prior_boxes(draw):
    count = draw(st.integers(1, 2))
    minimums = draw(st.lists(st.integers(4, 40), min_size=count, max_size=count))
    arguments = {
        "minimums": minimums,
        "ratios": draw(st.lists(st.sampled_from([1.0, 2.0, 3.0, 0.4]), max_size=3, unique=True)),
        "flip": draw(st.booleans()),
        "clip": draw(st.booleans()),
        "variance": draw(st.sampled_from([(0.1,), (0.25,), (0.1, 0.1, 0.2, 0.2)])),
        "offset": draw(st.sampled_from([0.5, 0.0])),
    }
    if draw(st.booleans()):
        arguments["maximums"] = [size + draw(st.integers(1, 30)) for size in minimums]
    step = draw(st.sampled_from([None, 8.0, (6.0, 9.0)]))
    if step:
        arguments["steps"] = step if isinstance(step, tuple) else (step, step)
    feature = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    return feature, (draw(st.integers(20, 50)), draw(st.integers(20, 50))), arguments


def prior_box_text(arguments):
    fields = [f"min_size: {size}" for size in arguments["minimums"]]
    fields += [f"max_size: {size}" for size in arguments.get("maximums", ())]
    fields += [f"aspect_ratio: {ratio}" for ratio in arguments.get("ratios", ())]
    fields += [f"variance: {value}" for value in arguments.get("variance", ())]
    fields += [f"{name}: {str(arguments[name]).lower()}" for name in ("flip", "clip", "offset") if name in arguments]
    if "steps" in arguments:
        fields += [f"step_h: {arguments['steps'][0]} step_w: {arguments['steps'][1]}"]
    return "prior_box_param { " + " ".join(fields) + " }"


@some
@given(prior_boxes())
def test_prior_boxes_are_opencvs_and_the_twins(case):
    feature, image, arguments = case
    prototxt = inputs(feature=(2, 3, *feature), image=(2, 3, *image))
    prototxt += layer("PriorBox", ["feature", "image"], prior_box_text(arguments))
    feed = {"feature": values(2, 3, *feature), "image": values(2, 3, *image)}
    got = ours(prototxt, feed)
    close(got, prior_box_twin(feature, image, **arguments))
    close(got, opencv(prototxt, feed))


def test_prior_box_sizes_are_rounded_down_as_caffe_does():
    prototxt = inputs(feature=(1, 3, 2, 3))
    text = "prior_box_param { min_size: 35.84 max_size: 76.8 aspect_ratio: 2 img_size: 512 step: 8 }"
    got = ours(prototxt + layer("PriorBox", ["feature"], text), {"feature": values(1, 3, 2, 3)})
    close(got, prior_box_twin((2, 3), (512, 512), minimums=[35], maximums=[76], ratios=[2], steps=(8, 8)))


# ---- DetectionOutput ----


def overlap(a, b):
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if min(sides) <= 0:
        return 0.0
    sizes = [0.0 if min(box[2:] - box[:2]) < 0 else np.prod(box[2:] - box[:2]) for box in (a, b)]
    return float(np.prod(sides) / (sum(sizes) - np.prod(sides)))


def decode_twin(priors, variances, offsets, code):
    moved = offsets * variances
    size, centre = priors[:, 2:] - priors[:, :2], (priors[:, 2:] + priors[:, :2]) / 2
    if code == "CORNER":
        return priors + moved
    if code == "CORNER_SIZE":
        return priors + moved * np.tile(size, 2)
    middle, half = moved[:, :2] * size + centre, np.exp(moved[:, 2:]) * size / 2
    return np.concatenate([middle - half, middle + half], axis=1)


def detection_output_twin(
    loc,
    conf,
    prior,
    *,
    classes,
    share=True,
    background=0,
    threshold=None,
    nms=0.3,
    top_k=-1,
    keep=-1,
    code="CORNER",
    encoded=False,
):
    """Caffe's rule, image by image and class by class."""
    priors, variances = prior.reshape(2, -1, 4).astype(np.float64)
    count, rows = len(priors), []
    variances = np.ones_like(variances) if encoded else variances
    for image in range(len(loc)):
        found = []
        scores = conf[image].reshape(count, classes)
        offsets = loc[image].reshape(count, -1, 4)
        for label in (c for c in range(classes) if c != background):
            boxes = decode_twin(priors, variances, offsets[:, 0 if share else label], code)
            order = np.argsort(-scores[:, label], kind="stable")
            order = [i for i in order if threshold is None or scores[i, label] > threshold]
            kept = []
            for i in order[: top_k if top_k > -1 else None]:
                if all(overlap(boxes[i], boxes[j]) <= nms for j in kept):
                    kept.append(i)
            found += [(scores[i, label], label, *boxes[i]) for i in kept]
        if -1 < keep < len(found):
            best = sorted(found, key=lambda row: -row[0])[:keep]
            found = sorted(best, key=lambda row: row[1])
        rows += [(image, label, score, *box) for score, label, *box in found]
    if not rows:
        rows = [(image, *[-1] * 6) for image in range(len(loc))]
    return np.array(rows, np.float32)[None, None]


@st.composite
def detections(draw):
    arguments = {
        "classes": draw(st.integers(2, 5)),
        "share": draw(st.booleans()),
        "nms": draw(st.sampled_from([0.1, 0.3, 0.45, 0.7])),
        "code": draw(st.sampled_from(["CORNER", "CENTER_SIZE", "CORNER_SIZE"])),
        "encoded": draw(st.booleans()),
        "threshold": draw(st.sampled_from([None, 0.01, 0.3, 0.999])),
        "top_k": draw(st.sampled_from([-1, 1, 5, 400])),
        "keep": draw(st.sampled_from([-1, 1, 4, 20])),
        "background": draw(st.sampled_from([0, 0, 1, -1])),
    }
    return arguments, draw(st.integers(1, 3)), draw(st.integers(1, 30)), draw(st.integers(0, 10**6))


def detection_text(arguments):
    fields = [f"num_classes: {arguments['classes']}", f"share_location: {str(arguments['share']).lower()}"]
    fields += [f"background_label_id: {arguments['background']}", f"keep_top_k: {arguments['keep']}"]
    fields += [f"code_type: {arguments['code']} variance_encoded_in_target: {str(arguments['encoded']).lower()}"]
    if arguments["threshold"] is not None:
        fields += [f"confidence_threshold: {arguments['threshold']}"]
    top_k = f"top_k: {arguments['top_k']}" if arguments["top_k"] > -1 else ""
    fields += [f"nms_param {{ nms_threshold: {arguments['nms']} {top_k} }}"]
    return "detection_output_param { " + " ".join(fields) + " }"


def detection_case(arguments, images, count, seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 0.7, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.1, 0.4, (count, 2))], axis=1)
    variances = np.broadcast_to([0.1, 0.1, 0.2, 0.2], boxes.shape)
    prior = np.stack([boxes.ravel(), variances.ravel()])[None].astype(np.float32)
    spread = 0.3 if arguments["encoded"] else 1.5
    loc = rng.normal(0, spread, (images, count * 4 * (1 if arguments["share"] else arguments["classes"])))
    conf = rng.dirichlet(np.ones(arguments["classes"]), (images, count)).reshape(images, -1)
    feed = {"loc": loc.astype(np.float32), "conf": conf.astype(np.float32), "prior": prior}
    prototxt = inputs(**{name: array.shape for name, array in feed.items()})
    return prototxt + layer("DetectionOutput", ["loc", "conf", "prior"], detection_text(arguments)), feed


@settings(some, max_examples=60)
@given(detections())
def test_detections_are_the_twins_row_by_row(case):
    arguments, *rest = case
    prototxt, feed = detection_case(arguments, *rest)
    got = ours(prototxt, feed)
    close(got, detection_output_twin(feed["loc"], feed["conf"], feed["prior"], **arguments))
    np.testing.assert_array_equal(got, ours(prototxt, feed, free_batch=False))


def as_set(detections):
    """Rows in an order of their own: OpenCV sorts an image's by score, and fills up with rows of 0."""
    rows = detections.reshape(-1, 7)
    rows = rows[(rows != 0).any(axis=1) & (rows[:, 1] != -1)]
    return rows[np.lexsort((-rows[:, 2], rows[:, 1], rows[:, 0]))]


@some
@given(detections(), st.sampled_from(["CORNER", "CENTER_SIZE"]), st.sampled_from([1, 4, 20]))
def test_detections_are_opencvs(case, code, keep):
    arguments, *rest = case
    # What OpenCV has: it must have a limit, and knows neither CORNER_SIZE nor a prior without variances of its own.
    arguments |= {"threshold": arguments["threshold"] or 0.01, "background": 0, "encoded": False}
    arguments |= {"code": code, "keep": keep}
    prototxt, feed = detection_case(arguments, *rest)
    close(as_set(ours(prototxt, feed)), as_set(opencv(prototxt, feed)))


def test_equal_scores_keep_the_order_of_the_priors():
    arguments = {"classes": 3, "threshold": 0.2, "top_k": 6, "keep": 8, "code": "CENTER_SIZE"}
    arguments |= {"share": True, "nms": 0.45, "encoded": False, "background": 0}
    prototxt, feed = detection_case(arguments, 2, 12, 3)
    feed["conf"] = np.float32([0.1, 0.25, 0.65] * 24).reshape(2, -1)
    got = ours(prototxt, feed)
    close(got, detection_output_twin(feed["loc"], feed["conf"], feed["prior"], **arguments))


HEAD = """
layer { name: "norm" type: "Normalize" bottom: "map1" top: "norm"
        norm_param { across_spatial: false channel_shared: false } }
layer { name: "loc1" type: "Permute" bottom: "norm" top: "loc1p" permute_param { order: 0 order: 2 order: 3 order: 1 } }
layer { name: "loc1f" type: "Flatten" bottom: "loc1p" top: "loc1f" flatten_param { axis: 1 } }
layer { name: "loc2" type: "Permute" bottom: "map2" top: "loc2p" permute_param { order: 0 order: 2 order: 3 order: 1 } }
layer { name: "loc2f" type: "Flatten" bottom: "loc2p" top: "loc2f" flatten_param { axis: 1 } }
layer { name: "conf" type: "Reshape" bottom: "scores" top: "confr" reshape_param { shape { dim: 0 dim: -1 dim: 4 } } }
layer { name: "soft" type: "Softmax" bottom: "confr" top: "soft" softmax_param { axis: 2 } }
layer { name: "conff" type: "Flatten" bottom: "soft" top: "conff" flatten_param { axis: 1 } }
layer { name: "prior1" type: "PriorBox" bottom: "map1" bottom: "data" top: "prior1" prior_box_param {
        min_size: 12 max_size: 20 aspect_ratio: 2 flip: true clip: false
        variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 step: 8 offset: 0.5 } }
layer { name: "prior2" type: "PriorBox" bottom: "map2" bottom: "data" top: "prior2" prior_box_param {
        min_size: 20 max_size: 30 aspect_ratio: 2 aspect_ratio: 3 flip: true clip: true
        variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 } }
layer { name: "locs" type: "Concat" bottom: "loc1f" bottom: "loc2f" top: "locs" concat_param { axis: 1 } }
layer { name: "priors" type: "Concat" bottom: "prior1" bottom: "prior2" top: "priors" concat_param { axis: 2 } }
layer { name: "y" type: "DetectionOutput" bottom: "locs" bottom: "conff" bottom: "priors" top: "y"
        detection_output_param { num_classes: 4 share_location: true background_label_id: 0
        nms_param { nms_threshold: 0.45 top_k: 30 } code_type: CENTER_SIZE keep_top_k: 25
        confidence_threshold: 0.05 } }
"""


@pytest.mark.parametrize("images", [1, 3])
def test_a_whole_ssd_head_detects_what_opencv_detects(images):
    shapes = {"data": (images, 3, 32, 40), "map1": (images, 16, 4, 5), "map2": (images, 24, 2, 3)}
    shapes["scores"] = (images, 4 * (4 * 5 * 4 + 6 * 2 * 3))
    feed = {name: values(*shape, seed=index) for index, (name, shape) in enumerate(shapes.items())}
    prototxt, blobs = inputs(**shapes) + HEAD, {"norm": [np.linspace(1, 4, 16, dtype=np.float32)]}
    got = ours(prototxt, feed, blobs)
    assert 0 < got.shape[2] <= 25 * images
    close(as_set(got), as_set(opencv(prototxt, feed, blobs)))
    np.testing.assert_array_equal(got, ours(prototxt, feed, blobs, free_batch=False))


# ---- Normalize, Interp, Upsample, ShuffleChannel ----


@some
@given(st.booleans(), st.booleans(), st.sampled_from([1e-10, 0.1]), st.integers(1, 3))
def test_normalize_is_opencvs_and_the_formula(across, shared, eps, images):
    flags = f"across_spatial: {str(across).lower()} channel_shared: {str(shared).lower()} eps: {eps}"
    prototxt = inputs(x=(images, 4, 3, 5)) + layer("Normalize", ["x"], f"norm_param {{ {flags} }}")
    x, scale = values(images, 4, 3, 5), values(1 if shared else 4, seed=1)
    got = ours(prototxt, {"x": x}, {"y": [scale]})
    norm = np.sqrt((x.astype(np.float64) ** 2).sum(axis=(1, 2, 3) if across else 1, keepdims=True) + eps)
    close(got, (x / norm * scale.reshape(1, -1, 1, 1)).astype(np.float32))
    if shared or not across:  # OpenCV lacks the fourth
        close(got, opencv(prototxt, {"x": x}, {"y": [scale]}))


def bilinear(x, height, width):
    """Corner pixels on corner pixels."""

    def weights(old, new):
        matrix = np.zeros((new, old))
        for i in range(new):
            place = i * (old - 1) / (new - 1) if new > 1 else 0
            low = min(int(place), old - 1)
            matrix[i, low] += 1 - (place - low)
            matrix[i, min(low + 1, old - 1)] += place - low
        return matrix

    rows, columns = weights(x.shape[2], height), weights(x.shape[3], width)
    return np.einsum("ih,nchw,jw->ncij", rows, x, columns).astype(np.float32)


@st.composite
def interpolations(draw):
    height, width = draw(st.integers(3, 9)), draw(st.integers(3, 9))
    kind = draw(st.sampled_from(["size", "zoom", "shrink", "both"]))
    beg, end = (0, 0) if draw(st.booleans()) else (-draw(st.integers(0, 1)), -draw(st.integers(0, 1)))
    old = (height + beg + end, width + beg + end)
    if kind == "size":
        new = (draw(st.integers(1, 20)), draw(st.integers(1, 20)))
        text = f"height: {new[0]} width: {new[1]}"
    else:
        zoom = draw(st.integers(1, 4)) if kind != "shrink" else 1
        shrink = draw(st.integers(1, 3)) if kind != "zoom" else 1
        new = tuple(((size - 1) // shrink) * zoom + 1 for size in old)
        text = (f"zoom_factor: {zoom} " if kind != "shrink" else "") + (
            f"shrink_factor: {shrink}" if kind != "zoom" else ""
        )
    pads = f"pad_beg: {beg} pad_end: {end}" if beg or end else ""
    return (height, width), (beg, end), new, f"interp_param {{ {text} {pads} }}"


@settings(some, max_examples=50)
@given(interpolations())
def test_interp_keeps_the_corners_where_they_are(case):
    old, (beg, end), new, text = case
    prototxt, x = inputs(x=(2, 3, *old)) + layer("Interp", ["x"], text), values(2, 3, *old)
    cut = x[:, :, -beg : old[0] + end, -beg : old[1] + end]
    close(ours(prototxt, {"x": x}), bilinear(cut, *new))
    if not (beg or end) and ("height" in text or "zoom" in text) and not ("zoom" in text and "shrink" in text):
        close(ours(prototxt, {"x": x}), opencv(prototxt, {"x": x}))


def test_every_interp_size_is_reached_with_a_free_batch():
    x = values(1, 1, 7, 33)
    for height, width in [(513, 1025), (41, 65), (6, 5), (1, 1), (7, 97)]:
        text = f"interp_param {{ height: {height} width: {width} }}"
        got = ours(inputs(x=(1, 1, 7, 33)) + layer("Interp", ["x"], text), {"x": x})
        close(got, bilinear(x, height, width))


UPSAMPLES = [
    ("scale: 2", (2, 2), 1),
    ("scale_h: 3 scale_w: 1", (3, 1), 1),
    ("stride: 4", (4, 4), 1),
    ("stride: 2 scale: 3", (2, 2), 3),
]


@pytest.mark.parametrize(("text", "factors", "times"), UPSAMPLES)
def test_upsample_repeats_pixels(text, factors, times):
    x = values(2, 3, 4, 5)
    got = ours(inputs(x=x.shape) + layer("Upsample", ["x"], f"upsample_param {{ {text} }}"), {"x": x})
    np.testing.assert_array_equal(got, x.repeat(factors[0], 2).repeat(factors[1], 3) * times)


def test_shuffle_channel_deals_the_groups_out():
    x = values(2, 6, 4, 5)
    got = ours(inputs(x=x.shape) + layer("ShuffleChannel", ["x"], "shuffle_channel_param { group: 3 }"), {"x": x})
    np.testing.assert_array_equal(got, x[:, [0, 2, 4, 1, 3, 5]])


def test_log_softmax_is_the_logarithm_of_softmax():
    x = values(2, 6, 4)
    got = ours(inputs(x=x.shape) + layer("LogSoftmax", ["x"]), {"x": x})
    close(got, np.log(np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)))


def test_argmax_finds_the_last_of_equal_values():
    x = np.float32([[1, 5, 5, 2]])
    for top_k, wanted in ((1, [2]), (3, [2, 1, 3])):
        text = f"argmax_param {{ axis: 1 top_k: {top_k} }}"
        assert ours(inputs(x=(1, 4)) + layer("ArgMax", ["x"], text), {"x": x}).tolist() == [wanted]


def test_no_layer_of_these_families_looks_quantizable():
    text = inputs(x=(1, 6, 5, 5), s=(3, 2, 4), cont=(3, 2))
    text += layer("LRN", ["x"], "lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 }", "lrn")
    text += layer("LSTM", ["s", "cont"], "recurrent_param { num_output: 3 }", "lstm")
    model = translate(read(text, {"lstm": [values(12, 4), values(12), values(12, 3)]}), free_batch=False)
    assert not find_layers(model)


# ---- What is refused ----

REFUSED = {
    "SPP": (layer("SPP", ["x"], "spp_param { pyramid_height: 2 }"), "pyramid"),
    "ROIPooling": (layer("ROIPooling", ["x", "r"], "roi_pooling_param { pooled_h: 2 pooled_w: 2 }"), "regions"),
    "PSROIPooling": (layer("PSROIPooling", ["x", "r"]), "regions"),
    "Proposal": (layer("Proposal", ["x", "r"]), "regions"),
    "unpooling": (layer("Upsample", ["x", "x"], "upsample_param { scale: 2 }"), "mask"),
    "interp to nothing": (layer("Interp", ["x"]), "0 x 0"),
    "interp with padding": (layer("Interp", ["x"], "interp_param { height: 4 width: 4 pad_beg: 1 }"), "pad_beg"),
    "even LRN": (layer("LRN", ["x"], "lrn_param { local_size: 4 }"), "local_size"),
    "an axis too many": (layer("Softmax", ["x"], "softmax_param { axis: 4 }"), "axis 4"),
    "top_k too large": (layer("ArgMax", ["x"], "argmax_param { axis: 1 top_k: 7 }"), "top_k"),
    "a crop too large": (layer("Crop", ["x", "x"], "crop_param { axis: 2 offset: 1 }"), "offset"),
    "a shape that does not fit": (
        layer("Reshape", ["x"], "reshape_param { shape { dim: 0 dim: 7 dim: -1 } }"),
        "divided",
    ),
    "an order that names an axis twice": (layer("Permute", ["x"], "permute_param { order: 1 order: 1 }"), "twice"),
    "no weights": (layer("Normalize", ["x"]), "weight"),
    "adaptive suppression": (
        layer("DetectionOutput", ["x", "x", "x"], "detection_output_param { num_classes: 2 nms_param { eta: 0.9 } }"),
        "eta",
    ),
    "confidences of other classes": (
        layer("DetectionOutput", ["x", "x", "x"], "detection_output_param { num_classes: 2 }"),
        "priors",
    ),
    "a prior box without image": (layer("PriorBox", ["x"], "prior_box_param { min_size: 3 }"), "image"),
    "a recurrent layer without cont": (layer("LSTM", ["x"], "recurrent_param { num_output: 2 }"), "bottoms"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_supported_is_refused_with_layer_line_cause_and_remedy(case):
    text, cause = REFUSED[case]
    with pytest.raises(ModelError, match="line 3") as caught:
        translate(read(inputs(x=(1, 6, 4, 4), r=(2, 5)) + text))
    assert caught.value.layer == "y"
    assert cause in str(caught.value.cause)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        layer("Reshape", ["x"], "reshape_param { shape { dim: 3 dim: -1 } }"),
        layer("Reshape", ["x"], "reshape_param { shape { dim: 2 dim: 3 dim: 16 } }"),
        layer("Reshape", ["x"], "reshape_param { shape { dim: -1 dim: 8 } }"),
        layer("Flatten", ["x"], "flatten_param { axis: 0 end_axis: 1 }"),
        layer("Tile", ["x"], "tile_param { axis: 0 tiles: 2 }"),
        layer("Permute", ["x"], "permute_param { order: 1 order: 0 }"),
        layer("ArgMax", ["x"], "argmax_param { axis: 0 }"),
    ],
)
def test_a_layer_that_mixes_images_fixes_the_batch(text):
    x = values(2, 3, 4, 4)
    prototxt = inputs(x=x.shape) + text
    got = ours(prototxt, {"x": x})
    np.testing.assert_array_equal(got, ours(prototxt, {"x": x}, free_batch=False))
    assert translate(read(prototxt)).graph.inputs[0].shape == x.shape


def test_a_layer_that_keeps_images_apart_leaves_the_batch_free():
    x = values(5, 6, 4, 4)
    text = inputs(x=(1, 6, 4, 4)) + layer("Reshape", ["x"], "reshape_param { shape { dim: 0 dim: -1 dim: 8 } }")
    assert ours(text, {"x": x}).shape == (5, 12, 8)
