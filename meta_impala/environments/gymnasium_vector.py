"""Any Gymnasium environment with discrete actions and array observations, N at a time.

A single environment is first brought to a common form (`make_single`: actions from 0, observations
float32 or uint8), so that the batch that trains and the one that is rendered show the network
exactly the same.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import DtypeObservation, TransformAction

# These register themselves.
import meta_impala.environments.catch
import meta_impala.environments.noise
import meta_impala.environments.patience
import meta_impala.environments.switching  # noqa: F401
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
        self._envs = SyncVectorEnv(
            [lambda: make_single(env_id)] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP
        )
        self._closed = False
        super().__init__(
            num_envs=num_envs,
            num_actions=int(self._envs.single_action_space.n),
            observation_shape=tuple(self._envs.single_observation_space.shape or ()),
            observation_dtype=np.dtype(self._envs.single_observation_space.dtype),
            action_repeat=1,
        )

    def close(self) -> None:
        super().close()
        self._closed = True
        self._envs.close()

    def _restart(self, seed: int) -> np.ndarray:
        if self._closed:
            raise RuntimeError("this environment was closed; make a new one")
        observations, _ = self._envs.reset(seed=seed)
        return observations

    def _advance(self, actions: np.ndarray) -> Transition:
        observations, rewards, terminations, truncations, info = self._envs.step(actions)
        ends = terminations | truncations
        final_observations = None
        if ends.any():
            final_observations = np.zeros_like(observations)
            for i in np.flatnonzero(ends):
                final_observations[i] = info["final_obs"][i]
        return Transition(
            observations=observations,
            rewards=rewards,
            terminations=terminations,
            truncations=truncations,
            final_observations=final_observations,
            episode_ends=ends,
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
