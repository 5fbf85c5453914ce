"""Any Gymnasium environment with discrete actions and array observations, N at a time.

A single environment is first brought to a common form (`make_single`: actions from 0, observations
float32 or uint8), so that the batch that trains and the one that is rendered show the network
exactly the same.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import DtypeObservation, TransformAction

# Registers Catch.
import meta_impala.environments.catch  # noqa: F401
from meta_impala.environments.base import (
    BatchedEnvironment,
    Transition,
    UnsupportedEnvironmentError,
    check_num_envs,
)


class GymnasiumEnvironment(BatchedEnvironment):
    """N copies of one Gymnasium environment, stepped one after the other; a frame is an agent step.

    The time limit, if any, is the one that the environment was registered with.
    """

    def __init__(self, env_id: str, num_envs: int) -> None:
        """Makes the environments.

        Args:
          env_id: a registered id, as "CartPole-v1" or "my_module:MyEnv-v0".
          num_envs: N.

        Raises:
          UnsupportedEnvironmentError: it cannot be made, or its actions or observations are of
            another kind.
        """
        check_num_envs(num_envs)
        self._envs = [make_single(env_id) for _ in range(num_envs)]
        self._closed = False
        actions, observations = self._envs[0].action_space, self._envs[0].observation_space
        assert isinstance(actions, Discrete) and isinstance(observations, Box)
        super().__init__(
            num_envs=num_envs,
            num_actions=int(actions.n),
            observation_shape=tuple(observations.shape),
            observation_dtype=np.dtype(observations.dtype),
            action_repeat=1,
        )
        self._observations = np.zeros([num_envs, *observations.shape], observations.dtype)

    def close(self) -> None:
        super().close()
        self._closed = True
        for env in self._envs:
            env.close()

    def _restart(self, seed: int) -> np.ndarray:
        if self._closed:
            raise RuntimeError("this environment was closed; make a new one")
        for i, env in enumerate(self._envs):
            self._observations[i], _ = env.reset(seed=seed + i)
        return self._observations.copy()

    def _advance(self, actions: np.ndarray) -> Transition:
        return self._advance_others(actions, np.zeros([self.num_envs], bool))

    def _advance_others(self, actions: np.ndarray, waiting: np.ndarray) -> Transition:
        rewards = np.zeros([self.num_envs], np.float64)
        terminations, truncations = np.zeros([2, self.num_envs], bool)
        finals = None
        for i in np.flatnonzero(~waiting):
            env = self._envs[i]
            observation, rewards[i], terminations[i], truncations[i], _ = env.step(actions[i])
            if terminations[i] or truncations[i]:
                # Copied here: an environment may use one buffer for all of its observations.
                finals = np.zeros_like(self._observations) if finals is None else finals
                finals[i] = observation
                observation, _ = env.reset()
            self._observations[i] = observation
        return Transition(
            observations=self._observations.copy(),
            rewards=rewards,
            terminations=terminations,
            truncations=truncations,
            final_observations=finals,
            episode_ends=terminations | truncations,
        )


def make_single(env_id: str, render_mode: str | None = None) -> "gymnasium.Env[Any, Any]":
    """Makes one environment whose actions are 0 to n − 1 and whose observations are float32 or
    uint8.

    Raises:
      UnsupportedEnvironmentError: as for `GymnasiumEnvironment`.
    """
    try:
        env = gymnasium.make(env_id, render_mode=render_mode, disable_env_checker=True)
    except (gymnasium.error.Error, ImportError) as error:
        reason = " ".join(str(error).split())
        raise UnsupportedEnvironmentError(f"{env_id} cannot be made: {reason}") from error
    objection = _why_unsupported(env)
    if objection:
        env.close()
        raise UnsupportedEnvironmentError(f"{env_id} cannot be used: {objection}")

    actions = env.action_space
    assert isinstance(actions, Discrete)
    start = int(actions.start)
    if start:
        env = TransformAction(env, lambda action: action + start, Discrete(int(actions.n)))
    if env.observation_space.dtype not in (np.uint8, np.float32):
        env = DtypeObservation(env, np.float32)
    return env


def make_render(env_id: str, seed: int) -> "gymnasium.Env[Any, Any]":
    """Makes one environment that renders to RGB arrays. It comes seeded: call `reset()` without a
    seed.

    Raises:
      UnsupportedEnvironmentError: as for `GymnasiumEnvironment`, or it has no "rgb_array" render
        mode.
    """
    env = make_single(env_id, render_mode="rgb_array")
    if "rgb_array" not in env.metadata.get("render_modes", []):
        env.close()
        raise UnsupportedEnvironmentError(
            f'{env_id} cannot be rendered: it has no "rgb_array" mode'
        )
    env.reset(seed=seed)
    return env


def _why_unsupported(env: "gymnasium.Env[Any, Any]") -> str | None:
    """Returns in one line what stands against this environment, or None."""
    actions, observations = env.action_space, env.observation_space
    if isinstance(actions, Box):
        return f"its actions are continuous ({actions}), only discrete ones are supported"
    if not isinstance(actions, Discrete):
        return f"its actions are {type(actions).__name__}, only Discrete ones are supported"
    if not isinstance(observations, Box):
        return (
            f"its observations are {type(observations).__name__}, only arrays (Box) are supported; "
            "a wrapper such as gymnasium.wrappers.FlattenObservation can turn them into one"
        )
    return None
