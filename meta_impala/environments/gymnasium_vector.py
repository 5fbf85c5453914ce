"""Any Gymnasium environment with discrete actions, N at a time, one after the other."""

import re
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

# These register themselves.
import meta_impala.environments.catch
import meta_impala.environments.noise
import meta_impala.environments.patience
import meta_impala.environments.switching  # noqa: F401
from meta_impala.environments import faults, minatar_games
from meta_impala.environments.base import (
    BatchedEnvironment,
    Transition,
    UnsupportedEnvironmentError,
    check_num_envs,
)
from meta_impala.environments.common_form import CommonForm, in_common_form
from meta_impala.errors import text_of


class GymnasiumEnvironment(BatchedEnvironment):
    """N copies of one Gymnasium environment, stepped one after the other; a frame is an agent step.

    The time limit, if any, is the one that the environment was registered with.
    """

    def __init__(
        self, env_id: str, num_envs: int, arguments: Mapping[str, Any] | None = None
    ) -> None:
        """Makes the environments.

        Args:
          env_id: a registered id, as "CartPole-v1" or "my_module:MyEnv-v0".
          num_envs: N.
          arguments: of the environment's constructor.

        Raises:
          UnsupportedEnvironmentError: it cannot be made, or its actions or observations are of
            another kind.
        """
        check_num_envs(num_envs)
        self._envs: list[CommonForm] = []
        self._closed = False
        try:
            for _ in range(num_envs):
                self._envs.append(make_single(env_id, arguments))
        except BaseException:
            self._close_all()
            raise
        space = self._envs[0].observation_space
        super().__init__(
            num_envs=num_envs,
            num_actions=int(self._envs[0].action_space.n),
            observation_shape=tuple(space.shape),
            observation_dtype=np.dtype(space.dtype),
            action_repeat=1,
        )
        self._observations = np.zeros([num_envs, *space.shape], space.dtype)

    @property
    def envs(self) -> tuple[CommonForm, ...]:
        """The single environments."""
        return tuple(self._envs)

    def close(self) -> None:
        super().close()
        if not self._closed:
            self._close_all()

    def _close_all(self) -> None:
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
            observation, rewards[i], terminated, truncated, _ = env.step(int(actions[i]))
            if terminated or truncated:
                terminations[i], truncations[i] = terminated, truncated
                # Copied: an environment may use one buffer for all of its observations.
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


def make_single(
    env_id: str, arguments: Mapping[str, Any] | None = None, render_mode: str | None = None
) -> CommonForm:
    """Makes one environment in common form.

    Options that are not set are not passed: a constructor need not take `render_mode`.

    Args:
      env_id, arguments: as for `GymnasiumEnvironment`.
      render_mode: Gymnasium's, or None.

    Raises:
      UnsupportedEnvironmentError: as for `GymnasiumEnvironment`.
    """
    given = dict(arguments or {})
    if render_mode is not None:
        given["render_mode"] = render_mode
    try:
        if env_id.startswith(minatar_games.NAMESPACE):
            minatar_games.register()
        # By its entry, not by its name: for a name without a version, Gymnasium would take the
        # newest registered version.
        entry = gymnasium.registry.get(env_id.rpartition(":")[2], env_id)
        with faults.ending_copies(env_id):
            env = gymnasium.make(entry, disable_env_checker=True, **given)
    except BaseException as error:
        if faults.is_ctrl_c(error):
            raise
        raise UnsupportedEnvironmentError(
            f"{env_id} cannot be made: {_why_not_made(env_id, given, error)}"
        ) from error
    try:
        return in_common_form(env, env_id)
    except UnsupportedEnvironmentError:
        env.close()
        raise


def make_render(env_id: str, seed: int, arguments: Mapping[str, Any] | None = None) -> CommonForm:
    """Makes one environment that renders to RGB arrays. It comes seeded: call `reset()` without a
    seed.

    Raises:
      UnsupportedEnvironmentError: as for `GymnasiumEnvironment`, or it has no "rgb_array" render
        mode.
    """
    env = make_single(env_id, arguments, render_mode="rgb_array")
    if "rgb_array" not in env.metadata.get("render_modes", []):
        env.close()
        raise UnsupportedEnvironmentError(
            f'{env_id} cannot be rendered: it has no "rgb_array" mode'
        )
    env.reset(seed=seed)
    return env


def _why_not_made(env_id: str, given: Mapping[str, Any], error: BaseException) -> str:
    """In one line: the reason, and the fix if it is known."""
    if package := minatar_games.why_missing(env_id):
        return package
    text = " ".join(text_of(error).split())
    if isinstance(error, gymnasium.error.Error | ImportError) and text:
        return text
    module, _, name = str(getattr(gymnasium.registry.get(env_id.rpartition(":")[2]), "entry_point",
                                  "")).partition(":")  # fmt: skip
    if isinstance(error, AttributeError) and f"module '{module}' has no attribute '{name}'" in text:
        return f"it is registered as {module}:{name}, but {text}"
    cause = error.__cause__  # Gymnasium raises a constructor's TypeError again, with a longer text
    if isinstance(error, TypeError) and isinstance(cause, TypeError):
        error, text = cause, " ".join(text_of(cause).split())
    reason = f"its constructor raised {faults.describe(error)}"
    unknown = re.search(r"unexpected keyword argument '(\w+)'", text)
    if unknown and unknown[1] in given:
        if unknown[1] == "render_mode":
            return "its constructor takes no render_mode, so it cannot be rendered"
        return f"{reason}; --environment_kwargs gives it {unknown[1]}"
    missing = re.search(r"missing .*argument.*: (.*)", text)
    if missing:
        name = re.findall(r"'(\w+)'", missing[1])[0]
        return f"{reason}; give it by --environment_kwargs='{{\"{name}\": ...}}'"
    return reason
