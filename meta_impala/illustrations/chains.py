"""The two Markov reward processes of Xu et al. 2018, section 2, in NumPy.

Both are chains: state s is left for state s + 1, and the last one for the terminal state, so that
time step t of an episode is always spent in state t + 1 (states count from 1, as in the paper).

* discount: leaving an odd state pays the signal, +0.1; leaving an even one pays noise, N(0, 1).
* bootstrap: leaving an odd state (a bottleneck) for one of n aliased states pays that state's
  ±r_i, and leaving the aliased state takes it back, −(±r_i). The n states of a step look the
  same, so they share one value and one λ: learning is about the chain of *observations*.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from meta_impala.illustrations.settings import DISCOUNT, Settings

SIGNAL, NOISE = "signal", "noise"
BOTTLENECK, ALIASED = "bottleneck", "aliased"


@dataclasses.dataclass(frozen=True)
class Process:
    """A chain of T states that are left with a reward.

    Attributes:
      kinds: of each of the T states.
      observations: for each of the T states the index of what is observed there; states with the
        same index share a value and a meta-parameter.
      expected_rewards: `[T]`, E[R_{t+1}] on leaving each state.
      draw: (generator, n) -> rewards of n episodes, `[n, T]`; n then m episodes are the same as
        n + m at once.
    """

    kinds: tuple[str, ...]
    observations: tuple[int, ...]
    expected_rewards: np.ndarray
    draw: Callable[[np.random.Generator, int], np.ndarray]

    @property
    def num_states(self) -> int:
        """T."""
        return len(self.kinds)

    @property
    def num_observations(self) -> int:
        """Different observations, at most T."""
        return max(self.observations) + 1

    def true_values(self, gamma: float) -> np.ndarray:
        """`[T]`, the expected return of each state at one discount γ for all states."""
        values = np.zeros(self.num_states + 1)
        for state in reversed(range(self.num_states)):
            values[state] = self.expected_rewards[state] + gamma * values[state + 1]
        return values[:-1]


def branch_rewards(branches: int, noise: float) -> np.ndarray:
    """`[n]`, the ±r_i: evenly spaced around 0, with standard deviation `noise`."""
    rewards = np.linspace(-1.0, 1.0, branches)
    return noise * rewards / rewards.std()


def discount_process(num_states: int, signal: float, noise: float) -> Process:
    """Example (a): the odd states' +0.1 is a signal in the even states' noise N(0, 1)."""
    even = np.arange(num_states) % 2 == 1  # state 2 has index 1

    def draw(generator: np.random.Generator, episodes: int) -> np.ndarray:
        rewards = np.full([episodes, num_states], signal)
        rewards[:, even] = noise * generator.standard_normal([episodes, int(even.sum())])
        return rewards

    return Process(
        kinds=tuple(NOISE if is_even else SIGNAL for is_even in even),
        observations=tuple(range(num_states)),
        expected_rewards=np.where(even, 0.0, signal),
        draw=draw,
    )


def bootstrap_process(
    num_states: int,
    branches: int,
    noise: float,
    *,
    last_reward_random: bool = False,
    alias_all: bool = False,
) -> Process:
    """Example (b): the reward of a bottleneck's transition is undone by the next one.

    Args:
      num_states: T, odd: a bottleneck at either end.
      branches: n, aliased states of one step.
      noise: standard deviation of ±r_i.
      last_reward_random: whether leaving the last bottleneck pays a ±r_i too, never taken back.
      alias_all: whether the aliased states of all steps look the same.
    """
    even = np.arange(num_states) % 2 == 1
    steps = num_states // 2
    rewards_of_branch = branch_rewards(branches, noise)
    draws = steps + int(last_reward_random)

    def draw(generator: np.random.Generator, episodes: int) -> np.ndarray:
        entered = rewards_of_branch[generator.integers(branches, size=[episodes, draws])]
        rewards = np.zeros([episodes, num_states])
        rewards[:, 0 : 2 * draws : 2] = entered
        rewards[:, 1::2] = -entered[:, :steps]
        return rewards

    observations = np.arange(num_states)
    if alias_all:
        observations = np.where(even, 1, np.where(observations > 0, 1 + observations // 2, 0))
    return Process(
        kinds=tuple(ALIASED if is_even else BOTTLENECK for is_even in even),
        observations=tuple(int(index) for index in observations),
        expected_rewards=np.zeros(num_states),
        draw=draw,
    )


def make(settings: Settings) -> Process:
    """The process of an example, from resolved settings."""
    num_states = settings.num_states
    if num_states is None:
        raise ValueError("the settings must be resolved first")
    if settings.example == DISCOUNT:
        return discount_process(num_states, settings.signal, settings.noise)
    return bootstrap_process(
        num_states,
        settings.branches,
        settings.noise,
        last_reward_random=settings.last_reward == "random",
        alias_all=settings.aliasing == "all",
    )
