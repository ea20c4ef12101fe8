"""Which layer gets how many bits: found by our search, or by PocketFlow's agent, and handed to a learner.

An evaluation makes a learner with the bits in question, tunes it for a few steps and measures it. The search knows
beforehand what each layer's bits do to the network's output, from a few samples and no labels, and starts at the
choice that is best by that; so a few evaluations do. The agent learns it by trying.

Source of the agent and of the options' names: PocketFlow's uniform and non-uniform quantization learners.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from amct_lite.errors import ParameterError
from amct_lite.learn.bit_errors import units_of_bits
from amct_lite.learn.learner import Learner, Metric, Validation
from amct_lite.learn.tuning import tune_layers
from amct_lite.search.choices import Choice, Unit, choice_bytes
from amct_lite.search.frontier import build_frontier
from amct_lite.search.objective import Goal, Objective
from amct_lite.search.strategies.protocol import Outcome, Strategy
from amct_lite.search.strategies.registry import DEFAULT_STRATEGY, MakeStrategy, make_strategy
from amct_lite.search.strategies.task import StrategyTask

__all__ = ["BitsFound", "allocate_bits"]

MakeLearner = Callable[[Mapping[str, int]], Learner]


@dataclass(frozen=True)
class BitsFound:
    """What a search for bits ended with.

    Attributes:
        weight_bits: Layer -> bits, for the learner's `weight_bits`.
        metric: That the best evaluation gave, after as many steps as evaluations have.
        equivalent_bits: Bits of a weight on average.
        float_metric: Of the network in float.
        trials: (layer -> bits, metric) of each evaluation, in order.
    """

    weight_bits: Mapping[str, int]
    metric: float
    equivalent_bits: float
    float_metric: float
    trials: tuple[tuple[Mapping[str, int], float], ...]


def allocate_bits(
    make_learner: MakeLearner,
    batches: Iterable[Any],
    validation: Validation,
    *,
    equivalent_bits: float = 4,
    w_bit_min: int = 2,
    w_bit_max: int = 8,
    strategy: str | MakeStrategy = DEFAULT_STRATEGY,
    max_evaluations: int = 20,
    nb_rlouts: int = 200,
    enbl_random_layers: bool = True,
    nb_tune_layerwise_steps: int = 0,
    nb_tune_global_steps: int = 100,
    learning_rate: float = 1e-3,
    metric: Metric | None = None,
    greater_is_better: bool = True,
    seed: int = 0,
) -> BitsFound:
    """Choose the bits of each layer's weights.

    Args:
        make_learner: (layer -> bits) -> a new learner: `lambda bits: UniformLearner("net.onnx", weight_bits=bits)`.
            It is also called with an empty mapping, to see which layers there are.
        batches: For tuning, as for `Learner.fit`; the first ones of them are held in memory.
        validation: What an evaluation measures, as for `Learner.fit`; not what results are reported on.
        equivalent_bits: Bits of a weight on average, at most.
        w_bit_min: A layer gets no fewer,
        w_bit_max: and no more.
        strategy: "frontier", the default; "ddpg" for the agent; any other that `auto_nuq` takes for "best".
        max_evaluations: Of the search.
        nb_rlouts: Evaluations of the agent, in place of `max_evaluations`; it acts after the first quarter of them.
        enbl_random_layers: Whether the agent visits layers in another order each time.
        nb_tune_layerwise_steps: Steps in which each layer by itself is tuned to the float network's numbers.
        nb_tune_global_steps: Steps in which the whole network is tuned.
        learning_rate: Of these steps.
        metric: As for `Learner.fit`.
        greater_is_better: Whether a greater metric is a better one.
        seed: Of the tuning and of the agent.

    Raises:
        ParameterError: The bits leave no choice, or there are no batches.
    """
    if not 1 <= w_bit_min <= equivalent_bits <= w_bit_max <= 8:
        raise ParameterError(
            "Bits must be 1 <= w_bit_min <= equivalent_bits <= w_bit_max <= 8."
            f" Got {w_bit_min!r}, {equivalent_bits!r} and {w_bit_max!r} instead."
        )
    held = list(islice(batches, max(nb_tune_global_steps, nb_tune_layerwise_steps, 1)))
    if not held:
        raise ParameterError("The 'batches' parameter is empty.", remedy="Give (inputs, labels) pairs.")
    plain = make_learner({})
    float_metric = plain.evaluate(validation, metric, quantized=False)
    units = units_of_bits(plain, make_learner, held[0][0], range(w_bit_min, w_bit_max + 1))
    num_weights = sum(unit.num_weights for unit in units)
    objective = Objective(Goal.BEST, int(equivalent_bits * num_weights / 8), greater_is_better)
    if strategy == "ddpg":
        from amct_lite.learn.bit_allocation_agent import BitAllocation, ddpg

        agent = BitAllocation(nb_rlouts, w_bit_min, w_bit_max, enbl_random_layers, seed)
        strategy, max_evaluations = partial(ddpg, parameters=agent), nb_rlouts
    task = StrategyTask(units, build_frontier(units), objective, max_evaluations)

    def evaluate(choice: Choice) -> float:
        learner = make_learner(_bits(units, choice))
        tune_layers(learner, held[:nb_tune_layerwise_steps], learning_rate, seed)
        if nb_tune_global_steps:
            learner.fit(held[:nb_tune_global_steps], learning_rate=learning_rate, seed=seed)
        return learner.evaluate(validation, metric)

    metrics = _run(make_strategy(strategy, task), evaluate, float_metric, max_evaluations)
    if not metrics:
        raise ParameterError(
            f"No choice of {w_bit_min} to {w_bit_max} bits stays within {equivalent_bits} on average.",
            remedy="Raise equivalent_bits, or lower w_bit_min.",
        )
    sign = 1.0 if greater_is_better else -1.0
    best = max(metrics, key=lambda choice: sign * metrics[choice])
    return BitsFound(
        _bits(units, best),
        metrics[best],
        choice_bytes(units, best) * 8 / num_weights,
        float_metric,
        tuple((_bits(units, choice), found) for choice, found in metrics.items()),
    )


def _bits(units: Sequence[Unit], choice: Choice) -> dict[str, int]:
    return {
        layer: int(unit.options[index].name.removeprefix("uniform"))
        for unit, index in zip(units, choice, strict=True)
        for layer in unit.layers
    }


def _run(
    strategy: Strategy, evaluate: Callable[[Choice], float], float_metric: float, max_evaluations: int
) -> dict[Choice, float]:
    """Ask, evaluate and tell until the strategy is done."""
    found: dict[Choice, float] = {}
    while len(found) < max_evaluations and (wanted := strategy.ask(1)):
        for choice in wanted:
            found[choice] = evaluate(choice)
            strategy.tell(choice, Outcome(found[choice], satisfied=True, change=found[choice] - float_metric))
    return found
