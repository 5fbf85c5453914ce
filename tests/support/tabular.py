"""The best policy of a small deterministic environment, by trying every sequence of actions."""

import itertools
from collections.abc import Callable

import gymnasium


def best_return(make: Callable[[], gymnasium.Env], gamma: float, seed: int = 0) -> float:
    """The undiscounted return of the sequence of actions whose γ-discounted return is highest.

    Args:
      make: the environment; every game of one seed is alike but for the actions.
      gamma: γ.
      seed: of every game.
    """
    found = []
    for actions in sequences(make, seed):
        rewards = play(make, actions, seed)
        discounted = sum(gamma**t * reward for t, reward in enumerate(rewards))
        found.append((discounted, sum(rewards)))
    return max(found)[1]


def sequences(make: Callable[[], gymnasium.Env], seed: int) -> list[tuple[int, ...]]:
    """Every sequence of actions of one episode."""
    env = make()
    length = len(play(make, itertools.repeat(0), seed))
    return list(itertools.product(range(env.action_space.n), repeat=length))


def play(make: Callable[[], gymnasium.Env], actions, seed: int) -> list[float]:
    """The rewards of one episode."""
    env = make()
    env.reset(seed=seed)
    rewards = []
    for action in actions:
        _, reward, terminated, truncated, _ = env.step(action)
        rewards.append(reward)
        if terminated or truncated:
            break
    return rewards
