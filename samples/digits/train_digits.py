"""Train the digits network and write it as ONNX: `python samples/digits/train_digits.py [digits.onnx]`.

Needs PyTorch (`pip install torch`), which nothing else in this sample does. With the same PyTorch on the same
kind of CPU two runs write the same bytes.
"""
# mypy: disable-error-code="import-not-found"

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from amct_lite.samples.digits.data import INPUT_NAME, MODEL_FILE, DigitsPart, load_split

__all__ = ["build_network", "export_network", "main", "top1_accuracy", "train_network"]

SEED = 7
EPOCHS = 60
BATCH_SIZE = 64
MAX_LEARNING_RATE = 4e-3
LARGEST_SHIFT = 1.0  # pixels
LARGEST_TURN = 10.0  # degrees
OPSET_VERSION = 17
IR_VERSION = 8  # the one that came with opset 17, so that older readers take the file


def build_network() -> torch.nn.Sequential:
    """Three 4x4 convolutions and two inner products: every layer with weights is one that NUQ may touch.

    Returns:
        An untrained network from images, shape (n, 1, 8, 8), to logits, shape (n, 10).
    """
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, padding=2, bias=False),  # 9 x 9
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, padding=1, bias=False),  # 8 x 8
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AvgPool2d(2),  # 4 x 4
        nn.Conv2d(32, 32, 4, padding=1, bias=False),  # 3 x 3
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(288, 96),
        nn.ReLU(),
        nn.Linear(96, 10),
    )


def shift_and_turn(images: torch.Tensor) -> torch.Tensor:
    """Move and turn each image a little at random, so that a thousand images are enough to train on."""
    count, _, height, _ = images.shape
    angle = (torch.rand(count) * 2 - 1) * np.deg2rad(LARGEST_TURN)
    shift = (torch.rand(count, 2, 1) * 2 - 1) * LARGEST_SHIFT * 2 / height
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).reshape(count, 2, 2)
    grid = torch.nn.functional.affine_grid(torch.cat([turn, shift], dim=2), list(images.shape), align_corners=False)
    return torch.nn.functional.grid_sample(images, grid, align_corners=False)


def train_network(part: DigitsPart) -> torch.nn.Sequential:
    """Train from scratch with AdamW and a one-cycle learning rate.

    Args:
        part: The images to train on.

    Returns:
        The trained network, in evaluation mode.
    """
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # the number of threads changes the order of sums
    network = build_network()
    images, labels = torch.from_numpy(part.images), torch.from_numpy(part.labels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=MAX_LEARNING_RATE, weight_decay=1e-2)
    steps_per_epoch = -(-len(labels) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, MAX_LEARNING_RATE, total_steps=EPOCHS * steps_per_epoch)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(labels)).split(BATCH_SIZE):
            logits = network(shift_and_turn(images[batch]))
            loss = torch.nn.functional.cross_entropy(logits, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def top1_accuracy(network: torch.nn.Sequential, part: DigitsPart) -> float:
    """Return the share of images whose highest logit is at the label."""
    with torch.no_grad():
        predicted = network(torch.from_numpy(part.images)).argmax(dim=1).numpy()
    return float(np.mean(predicted == part.labels))


def export_network(network: torch.nn.Sequential, model_file: Path) -> None:
    """Write the network as ONNX, layer by layer, with names that a person can read in a config.

    Args:
        network: A trained network of `build_network`'s architecture.
        model_file: Where the model goes.
    """
    image = ir.val(INPUT_NAME, ir.DataType.FLOAT, ["N", 1, 8, 8])
    value, nodes, initializers = image, [], []

    def constant(name: str, tensor: torch.Tensor | None) -> ir.Value | None:
        if tensor is None:
            return None
        array: npt.NDArray[np.float32] = tensor.detach().numpy()
        initializers.append(ir.val(name, const_value=ir.tensor(array, name=name)))
        return initializers[-1]

    counts: dict[str, int] = {}
    for module in network:
        kind, op_type, attributes = onnx_operator(module)
        counts[kind] = counts.get(kind, 0) + 1
        name = kind if kind in ("pool", "flatten") else f"{kind}{counts[kind]}"
        inputs = [value]
        for suffix in ("weight", "bias", "running_mean", "running_var"):
            operand = constant(f"{name}.{suffix}", getattr(module, suffix, None))
            inputs += [operand] if operand is not None else []
        node = ir.node(op_type, inputs, attributes, name=name)
        node.outputs[0].name = f"{name}_out"
        nodes.append(node)
        value = node.outputs[0]
    value.name = "logits"
    value.dtype, value.shape = ir.DataType.FLOAT, ir.Shape(["N", 10])
    graph = ir.Graph(
        [image], [value], nodes=nodes, initializers=initializers, name="digits",
        opset_imports={"": OPSET_VERSION},
    )  # fmt: skip
    ir.save(ir.Model(graph, ir_version=IR_VERSION, producer_name="amct_lite.samples.digits"), model_file)


def onnx_operator(module: torch.nn.Module) -> tuple[str, str, dict[str, Any]]:
    """Say how ONNX calls a module of the network: (our name, operator, attributes)."""
    match type(module).__name__:
        case "Conv2d":
            pads = [module.padding[0]] * 4
            return "conv", "Conv", {"kernel_shape": [4, 4], "pads": pads}
        case "BatchNorm2d":
            return "norm", "BatchNormalization", {"epsilon": float(module.eps)}
        case "ReLU":
            return "relu", "Relu", {}
        case "AvgPool2d":
            return "pool", "AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]}
        case "Flatten":
            return "flatten", "Flatten", {"axis": 1}
        case "Linear":
            return "fc", "Gemm", {"transB": 1}
        case other:
            raise ValueError(f"The digits network has no {other}.")


def main() -> None:
    """Train, report the accuracy on images that training never saw, and write the file."""
    model_file = Path(sys.argv[1]) if len(sys.argv) > 1 else MODEL_FILE
    split = load_split()
    network = train_network(split.train)
    for name in ("train", "validation", "held_out"):
        print(f"top-1 on {name}: {top1_accuracy(network, getattr(split, name)):.4f}")
    export_network(network, model_file)
    print(f"wrote {model_file} ({model_file.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
