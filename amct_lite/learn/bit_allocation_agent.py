"""The strategy "ddpg": an agent learns from roll-outs which option each unit should get.

Sources: Lillicrap et al. 2016, "Continuous control with deep reinforcement learning" (DDPG), as stable-baselines3 has
it; PocketFlow's bit allocation and HAQ (Wang et al. 2019): one reward that all steps of a roll-out share, and an agent
that does not act in the first quarter of the roll-outs.

The agent's parts are used step by step, since evaluations come by `ask` and `tell`: `predict` for an action,
`replay_buffer.add` for what came of it, `train` for gradient steps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from amct_lite.errors import OptionalDependencyError, ParameterError
from amct_lite.learn.own_randomness import OwnRandomness
from amct_lite.learn.reward import Reward
from amct_lite.learn.roll_out import Observation, RollOut, RollOuts
from amct_lite.search.choices import Choice
from amct_lite.search.strategies.protocol import Outcome
from amct_lite.search.strategies.sampled import SampledStrategy
from amct_lite.search.strategies.task import StrategyTask, starting_choices

if TYPE_CHECKING:
    from stable_baselines3 import DDPG

__all__ = ["BitAllocation", "ddpg"]

ROUND_SIZE = 4
BATCH_SIZE = 64
HIDDEN_UNITS = (64, 64)

# The part of the roll-outs in which the agent does not act yet.
WARM_UP = 0.25
LEAST_WARM_UP = 8

# The noise on actions in [0, 1], the better of two that were tried on a dozen synthetic networks, and what is left of
# it after each roll-out.
FIRST_NOISE = 0.25
NOISE_DECAY = 0.98


@dataclass(frozen=True)
class BitAllocation:
    """The parameters, under PocketFlow's names.

    PocketFlow's `equivalent_bits` is the objective's, and its greatest number of bits is 8, for it has no float option.

    Attributes:
        nb_rlouts: Roll-outs that are evaluated at most; those that repeat a choice are not counted.
        w_bit_min: Weights get no option of fewer bits,
        w_bit_max: nor of more.
        enbl_random_layers: Whether each roll-out visits the units in another order.
        seed: Of the agent and of its noise.
    """

    nb_rlouts: int = 200
    w_bit_min: float = 2
    w_bit_max: float = 32
    enbl_random_layers: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.nb_rlouts < 1:
            raise ParameterError(f"The 'nb_rlouts' parameter must be an int >= 1. Got {self.nb_rlouts!r} instead.")


def ddpg(task: StrategyTask, parameters: BitAllocation | None = None) -> SampledStrategy:
    """The strategy.

    Args:
        task: What is chosen, and what for.
        parameters: None for the defaults.

    Raises:
        OptionalDependencyError: PyTorch or stable-baselines3 is not installed.
        ParameterError: The bits leave a unit without an option.
    """
    parameters = parameters or BitAllocation()
    num_roll_outs = min(parameters.nb_rlouts, task.max_trials)
    agent = _AgentSampler(task, parameters, num_roll_outs)
    return SampledStrategy(agent, task, round_size=ROUND_SIZE, max_trials=num_roll_outs)


class _AgentSampler:
    """A `Sampler` whose samples are an agent's roll-outs."""

    def __init__(self, task: StrategyTask, parameters: BitAllocation, num_roll_outs: int) -> None:
        self._task, self._shuffles = task, parameters.enbl_random_layers
        self._roll_outs = RollOuts(task, parameters.w_bit_min, parameters.w_bit_max)
        self._rng = np.random.default_rng(parameters.seed)
        _require_packages()
        self._randomness = OwnRandomness(parameters.seed)
        with self._randomness.used():
            self._model = _make_model(self._roll_outs.state_size, num_roll_outs * len(task.units), parameters.seed)
        warm_up = min(max(math.ceil(WARM_UP * num_roll_outs), LEAST_WARM_UP), num_roll_outs)
        # Random actions alone would hardly ever satisfy, and leave nothing to learn of.
        self._starts = starting_choices(task, math.ceil(warm_up / 2))
        self._warm_up, self._noise = warm_up, FIRST_NOISE
        self._sampled: list[RollOut] = []
        self._waiting: list[tuple[RollOut, Outcome]] = []
        self._learned: set[Choice] = set()
        self._reward: Reward | None = None

    def sample(self) -> Choice:
        """See `Sampler`."""
        order = np.arange(len(self._task.units))
        if self._shuffles:
            self._rng.shuffle(order)
        if self._starts:
            start = self._starts.pop(0)
            roll_out = self._roll_outs.roll_out(order.tolist(), lambda n, _: self._roll_outs.action(n, start[n]))
        else:
            with self._randomness.used():
                roll_out = self._roll_outs.roll_out(order.tolist(), self._decide)
        self._sampled.append(roll_out)
        return roll_out.choice

    def learn(self, outcomes: Sequence[tuple[Choice, Outcome | None]]) -> None:
        """See `Sampler`."""
        for roll_out, (choice, outcome) in zip(self._sampled, outcomes, strict=True):
            if outcome is not None and choice not in self._learned:
                self._learned.add(choice)
                self._waiting.append((roll_out, outcome))
        self._sampled = []
        if self._reward is None:
            if len(self._waiting) < self._warm_up:
                return
            self._reward = Reward(self._task, [(roll_out.choice, outcome) for roll_out, outcome in self._waiting])
        if self._waiting:
            self._train([(roll_out, self._reward(roll_out.choice, outcome)) for roll_out, outcome in self._waiting])
        self._noise *= NOISE_DECAY ** len(self._waiting)
        self._waiting = []

    def _decide(self, _number: int, observation: Observation) -> float:
        if self._reward is None:
            return float(self._rng.uniform())
        raw, _ = self._model.predict(observation, deterministic=True)
        return float(np.clip((raw[0] + 1) / 2 + self._rng.normal(0, self._noise), 0, 1))

    def _train(self, rewarded: Sequence[tuple[RollOut, float]]) -> None:
        model = self._model
        assert model.replay_buffer is not None
        for roll_out, reward in rewarded:
            observations, steps = roll_out.observations, len(roll_out.actions)
            # The reward is known after the last unit and shared by all: that is each step's whole return, so that
            # nothing has to be bootstrapped from the next one.
            shared = np.array([reward])
            for step in range(steps):
                done = np.array([step == steps - 1])
                after = observations[min(step + 1, steps - 1)]
                action = roll_out.actions[step : step + 1] * 2 - 1
                model.replay_buffer.add(observations[step], after, action, shared, done, [{}])
        with self._randomness.used():
            model.train(gradient_steps=sum(len(roll_out.actions) for roll_out, _ in rewarded), batch_size=BATCH_SIZE)


def _make_model(state_size: int, buffer_size: int, seed: int) -> "DDPG":
    import gymnasium
    from stable_baselines3 import DDPG
    from stable_baselines3.common.logger import configure

    # The agent needs to know the spaces alone: it is not the one that walks.
    environment: gymnasium.Env[Any, Any] = gymnasium.Env()
    environment.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (state_size,), np.float32)
    environment.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    model = DDPG(
        "MlpPolicy",
        environment,
        gamma=0.0,  # see where the rewards are remembered
        buffer_size=buffer_size,
        policy_kwargs={"net_arch": list(HIDDEN_UNITS)},
        seed=seed,
        device="cpu",
    )
    model.set_logger(configure(None, []))
    return model


def _require_packages() -> None:
    try:
        import stable_baselines3  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise OptionalDependencyError(
            "The strategy 'ddpg' needs the packages torch and stable-baselines3, of which one is not installed.",
            remedy="pip install 'amct-lite[train]'",
        ) from error
