"""The training loop: torch's optimizers over the user's batches, with checkpoints from which it goes on exactly."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from amct_lite.errors import ParameterError, TrainingError
from amct_lite.learn.batches import begin_epoch, run_module, to_device
from amct_lite.learn.checkpoint import load_checkpoint, save_checkpoint
from amct_lite.learn.own_randomness import OwnRandomness, random_states, restore_random_states
from amct_lite.progress import TrainingProgress

__all__ = ["Epoch", "Training", "train"]

Parameters = Sequence[Any]
"""Tensors, or PyTorch's groups of them: {"params": tensors, "lr": learning rate}."""


@dataclass(frozen=True)
class Training:
    """How long and how fast to train.

    Attributes:
        epochs: Passes over the data at most.
        learning_rate: Of the first epoch.
        learning_rate_decay: What it is multiplied by after each epoch; "cosine" lets it fall to 0 over all steps, or
            from epoch to epoch where batches have no length.
        optimizer: (parameters or groups of them, learning rate) -> an optimizer of PyTorch's; None for Adam.
        patience: Epochs without a better metric after which training ends; None trains all epochs.
        seed: Of Python's, numpy's and PyTorch's random numbers while training.
        device: "cpu", "cuda", "cuda:1", or None for CUDA where there is one.
        mixed_precision: Whether CUDA computes in bfloat16 where that is safe (torch.autocast).
        checkpoint: A file written after each epoch; where it exists training goes on behind its epoch, to the same
            weights as without a stop.
    """

    epochs: int = 1
    learning_rate: float = 1e-3
    learning_rate_decay: float | str = "cosine"
    optimizer: Callable[[Any, float], Any] | None = None
    patience: int | None = None
    seed: int = 0
    device: str | None = None
    mixed_precision: bool = False
    checkpoint: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        decay = self.learning_rate_decay
        if self.epochs < 1 or self.learning_rate <= 0 or not (decay == "cosine" or isinstance(decay, int | float)):
            raise ParameterError(
                "Training takes epochs >= 1, a learning_rate > 0 and a learning_rate_decay that is a number or"
                f" 'cosine'. Got {self.epochs!r}, {self.learning_rate!r} and {decay!r} instead."
            )

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with; more epochs may be added where the learning rate does not need them."""
        free = {"device", "checkpoint", "patience", "optimizer", *(["epochs"] if self._epochs_are_free else [])}
        return {name: value for name, value in self.__dict__.items() if name not in free}

    @property
    def _epochs_are_free(self) -> bool:
        return self.learning_rate_decay != "cosine"

    @property
    def torch_device(self) -> Any:
        """The device."""
        return torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def share_of_rate(self, epochs_done: float) -> float:
        """What is left of the learning rate after so many epochs, parts of one included."""
        if isinstance(self.learning_rate_decay, str):
            return 0.5 + 0.5 * math.cos(math.pi * epochs_done / self.epochs)
        return float(self.learning_rate_decay ** math.floor(epochs_done))


@dataclass(frozen=True)
class Epoch:
    """What one pass gave.

    Attributes:
        number: From 1.
        loss: Mean over the batches.
        metric: Of the module after it; None without validation.
        steps: Batches so far, over all epochs.
    """

    number: int
    loss: float
    metric: float | None
    steps: int


def train(
    module: nn.Module,
    batches: Iterable[Any],
    loss: Callable[[Any, Any, Any], Any],
    training: Training,
    *,
    parameters: Parameters | None = None,
    validate: Callable[[], float] | None = None,
    before_step: Callable[[int], None] = lambda _steps: None,
    identity: Mapping[str, Any] | None = None,
) -> list[Epoch]:
    """Train a module's parameters in place; with `validate` it ends with those of the best epoch.

    Args:
        module: What to train, and all that a checkpoint has to hold.
        batches: (inputs, labels) pairs of arrays or tensors, iterated once for each epoch.
        loss: (outputs, labels, inputs) -> a scalar tensor.
        training: How.
        parameters: What to train; None for all parameters of the module that require gradients.
        validate: Measures the module in evaluation mode, greater is better.
        before_step: Called with the number of steps done, before each.
        identity: What a checkpoint belongs to, beside the training itself.

    Returns:
        What each epoch gave, those before a resumed checkpoint included.

    Raises:
        TrainingError: The loss is no finite number.
        ParameterError: The checkpoint is of another training, or an epoch has no batches.
    """
    device = training.torch_device
    module.to(device)
    wanted = [parameter for parameter in module.parameters() if parameter.requires_grad]
    make = training.optimizer or torch.optim.Adam
    optimizer = make(wanted if parameters is None else parameters, training.learning_rate)
    rates = [group["lr"] for group in optimizer.param_groups]
    belongs = {**(identity or {}), **training.identity, "optimizer": type(optimizer).__name__}
    history: list[Epoch] = []
    best: dict[str, Any] | None = None
    parts = {"module": module, "optimizer": optimizer}
    mixed = training.mixed_precision and device.type == "cuda"
    length = len(batches) if isinstance(batches, Sized) else math.inf
    with OwnRandomness(training.seed, threads=None).used(), TrainingProgress(training.epochs) as progress:
        state = None if training.checkpoint is None else load_checkpoint(training.checkpoint, belongs)
        if state is not None:
            for name, part in parts.items():
                part.load_state_dict(state[name])
            history, best = [Epoch(**epoch) for epoch in state["history"]], state["best"]
            restore_random_states(state["random"])
        while len(history) < training.epochs and not _has_stalled(history, training.patience):
            number, steps, total = len(history) + 1, history[-1].steps if history else 0, 0.0
            count = 0
            begin_epoch(batches, number)
            module.train()
            for count, (inputs, labels) in enumerate(batches, 1):
                before_step(steps)
                share = training.share_of_rate(number - 1 + min((count - 1) / length, 1 - 1e-9))
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * share
                inputs, labels = to_device(inputs, device, inputs=True), to_device(labels, device)
                with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
                    value = loss(run_module(module, inputs), labels, inputs)
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                total, steps = total + float(value.detach()), steps + 1
                if not math.isfinite(total):
                    raise TrainingError(
                        f"The loss is {float(value.detach())} at step {steps}.", remedy="Lower learning_rate."
                    )
                progress.step(number, count, total / count)
            if not count:
                raise ParameterError(
                    f"The batches are empty in epoch {number}.", remedy="Each iteration must begin anew."
                )
            module.eval()
            history.append(Epoch(number, total / count, None if validate is None else validate(), steps))
            progress.epoch(number, history[-1].loss, history[-1].metric)
            if validate is not None and _best(history).number == number:
                best = {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
            if training.checkpoint is not None:
                state = {name: part.state_dict() for name, part in parts.items()}
                state |= {"history": [asdict(epoch) for epoch in history], "best": best, "random": random_states()}
                save_checkpoint(training.checkpoint, belongs, state)
    if best is not None:
        module.load_state_dict(best)
    module.eval()
    return history


def _best(history: Sequence[Epoch]) -> Epoch:
    """The first of those with the best metric."""
    return max(history, key=lambda epoch: -math.inf if epoch.metric is None else epoch.metric)


def _has_stalled(history: Sequence[Epoch], patience: int | None) -> bool:
    return patience is not None and bool(history) and len(history) - _best(history).number >= patience
