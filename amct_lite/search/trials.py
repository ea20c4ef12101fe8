"""Trials: a choice becomes a config, a fake-quant model and a metric, once; the journal remembers it."""

import hashlib
import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from amct_lite.auto_nuq import AutoNuqEvaluatorBase
from amct_lite.errors import EvaluatorError
from amct_lite.export.save import ModelFiles, fake_quant_form
from amct_lite.files.config import LayerConfig, QuantConfig
from amct_lite.files.journal import Journal
from amct_lite.quantize.apply_record import quantized_layers
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.plan import make_plan
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.search.factor_store import FactorStore
from amct_lite.search.options import weight_params
from amct_lite.search.path import Choice, Option, Unit, choice_bytes
from amct_lite.search.result import Trial

__all__ = ["BudgetSpentError", "TrialRunner", "config_of"]

FLOAT_KEY = "float"


class BudgetSpentError(Exception):
    """No further trial may be started; the search ends with what it has."""


class TrialRunner:
    """Evaluates choices, each at most once, within a budget.

    Attributes:
        trials: What was evaluated so far, in order, those read back from the journal included.
        best: The smallest choice that satisfied so far.
        original_metric: The float model's metric.
    """

    def __init__(
        self,
        planned: PlannedGraph,
        units: Sequence[Unit],
        store: FactorStore,
        evaluator: AutoNuqEvaluatorBase,
        journal: Journal,
        *,
        max_evaluations: int,
        deadline: float | None,
        report: Callable[[Trial], None],
    ) -> None:
        self.trials: list[Trial] = []
        self.best: Choice | None = None
        self.last: Choice | None = None
        self.original_metric = 0.0
        self._planned, self._units, self._store = planned, units, store
        self._evaluator, self._report = evaluator, report
        self._max_evaluations, self._deadline = max_evaluations, deadline
        self._journal = journal
        self._known: dict[str, float] = {entry["key"]: entry["metric"] for entry in journal.entries}
        self._done: dict[str, Trial] = {}

    def evaluate_float(self) -> float:
        """Evaluate the float model.

        Raises:
            EvaluatorError: The evaluator does not accept the float model itself.
        """
        model = self._planned.model
        files = ModelFiles(model.path, model.weights_path)
        trial = self._trial(FLOAT_KEY, model.size_bytes, lambda: self._call(files), is_float=True)
        self.original_metric = trial.metric
        if not trial.satisfied:
            raise EvaluatorError(
                f"is_satisfied({trial.metric!r}, {trial.metric!r}) is False: the evaluator refuses the float model.",
                remedy="Correct is_satisfied, so that a model as good as the float one passes.",
            )
        return trial.metric

    def satisfies(self, choice: Choice) -> bool:
        """Whether a choice passes the user's test.

        Raises:
            BudgetSpentError: It was not evaluated yet and the budget is spent.
        """
        config = config_of(self._planned, self._units, choice)
        size = choice_bytes(self._units, choice)
        trial = self._trial(config_key(config), size, lambda: self._evaluate(config))
        self.last = choice if self.last is None else max(self.last, choice, key=self._size)
        if trial.satisfied and (self.best is None or size < self._size(self.best)):
            self.best = choice
        return trial.satisfied

    def _size(self, choice: Choice) -> int:
        return choice_bytes(self._units, choice)

    def _trial(self, key: str, size: int, measure: Callable[[], float], *, is_float: bool = False) -> Trial:
        if key in self._done:
            return self._done[key]
        if len(self.trials) >= self._max_evaluations:
            raise BudgetSpentError
        metric = self._known.get(key)
        if metric is None:
            if self._deadline is not None and time.monotonic() >= self._deadline and not is_float:
                raise BudgetSpentError
            metric = measure()
            self._journal.append({"key": key, "size_bytes": size, "metric": metric})
        # Asked again for a trial of the journal too: it costs nothing, and the user may have moved the limit.
        satisfied = bool(self._evaluator.is_satisfied(metric if is_float else self.original_metric, metric))
        trial = Trial(key, size, metric, satisfied)
        self._done[key] = trial
        self.trials.append(trial)
        self._report(trial)
        return trial

    def _evaluate(self, config: QuantConfig) -> float:
        plans = make_plan(self._planned.model.layers, config, self._planned.target)
        layers = quantized_layers(self._planned.model, self._store.records(plans))
        with tempfile.TemporaryDirectory(prefix="amct_lite_trial_") as folder:
            form = fake_quant_form(self._planned, layers, Path(folder), "candidate_")
            form.write()
            return self._call(form.files)

    def _call(self, files: ModelFiles) -> float:
        # The evaluator's own exceptions pass through with their traceback: they are the user's to see.
        weights = None if files.weights is None else str(files.weights)
        metric: Any = self._evaluator.eval_model(str(files.model), weights, self._evaluator.evaluate_batch_num)
        try:
            value = float(metric)  # numpy arrays and torch tensors of one element convert too
        except (TypeError, ValueError, RuntimeError) as error:
            raise EvaluatorError(
                f"eval_model must return one number. Got {metric!r} instead.",
                remedy="Return a float, for example the top-1 accuracy.",
            ) from error
        if math.isnan(value):
            raise EvaluatorError(
                "eval_model returned nan, which no test can compare.",
                remedy="Return a finite number; for a model that gives no result return the worst value.",
            )
        return value


def config_of(planned: PlannedGraph, units: Sequence[Unit], choice: Choice) -> QuantConfig:
    """The config that a choice stands for."""
    plans = {plan.layer.name: plan for plan in planned.plans}
    blocks = planned.config.layers
    for unit, index in zip(units, choice, strict=True):
        option = unit.options[index]
        change = _with_ratio if unit.kind == "activation" else _with_weights
        blocks.update({name: change(blocks[name], plans[name], option) for name in unit.layers})
    rendered = {name: block.model_dump(exclude_none=True) for name, block in blocks.items()}
    return QuantConfig.model_validate({**planned.config.to_document(), **rendered})


def _with_weights(block: LayerConfig, plan: LayerPlan, option: Option) -> LayerConfig:
    num_steps = None if option.value is None else int(option.value)
    params = weight_params(plan, num_steps)
    return block.model_copy(update={"quant_enable": not option.is_float, "weight_quant_params": params})


def _with_ratio(block: LayerConfig, _plan: LayerPlan, option: Option) -> LayerConfig:
    asked = block.activation_quant_params.nuq
    assert asked is not None
    nuq = None if option.value is None else asked.model_copy(update={"target_compression_ratio": option.value})
    params = block.activation_quant_params.model_copy(update={"nuq": nuq})
    return block.model_copy(update={"activation_quant_params": params})


def config_key(config: QuantConfig) -> str:
    """Digest of a config: the key of its trial."""
    canonical = json.dumps(config.to_document(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
