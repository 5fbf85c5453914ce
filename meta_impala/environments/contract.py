"""A trial of an environment before training: does it follow Gymnasium's interface?

An error that would otherwise surface inside NumPy or TensorFlow in the middle of a run is found
here, in a few steps, and reported in one line.
"""

import math
import time

import numpy as np

from meta_impala.environments import faults
from meta_impala.environments.base import EnvironmentFailed, UnsupportedEnvironmentError
from meta_impala.environments.common_form import CommonForm, why_no_reset, why_no_step
from meta_impala.system.ending import ForeignCodeThread

_STEPS = 12
_SECONDS = 2.0  # for a slow simulator the trial ends here
_LARGEST = float(np.finfo(np.float32).max)


class Trial(ForeignCodeThread):
    """`check_contract` in a thread of its own, as the environments of actors are played: some code
    works in the main thread only (signal handlers), or in the thread that made an object."""

    def __init__(self, env: CommonForm, env_id: str) -> None:
        """Args:
        env, env_id: as for `check_contract`.
        """
        super().__init__(f"trial of {env_id}")
        self._env, self._env_id = env, env_id
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            check_contract(self._env, self._env_id)
        except BaseException as error:  # noqa: BLE001 - raised again by `finish`
            self._error = error

    def finish(self) -> None:
        """Waits for its end; raises what `check_contract` raised."""
        self.join()
        if self._error is not None:
            raise self._error


def check_contract(env: CommonForm, env_id: str) -> None:
    """Resets an environment and takes a few steps, each action in turn.

    Raises:
      UnsupportedEnvironmentError: it raised, or returned something that Gymnasium does not allow or
        that cannot be learned from; in one line.
    """
    started = time.monotonic()
    try:
        _check_finite(env_id, env.reset(seed=0)[0], "reset()")
        for step in range(1, _STEPS + 1):
            action = step % int(env.action_space.n)
            observation, reward, terminated, truncated, _ = env.step(action)
            where = f"step() at step {step}"
            _check_finite(env_id, observation, where)
            _check_reward(env_id, reward, where)
            if terminated or truncated:
                _check_finite(env_id, env.reset()[0], "reset()")
            if time.monotonic() - started > _SECONDS:
                break
    except EnvironmentFailed as error:
        # Gymnasium's own wrappers fail first where an environment has an older interface.
        message = _older_interface(env, env_id) or str(error)
        raise UnsupportedEnvironmentError(message) from error


def _check_finite(env_id: str, observation: np.ndarray, where: str) -> None:
    if not np.isfinite(observation).all():
        nans, infinities = (int(test(observation).sum()) for test in (np.isnan, np.isinf))
        raise UnsupportedEnvironmentError(
            f"{env_id}: its {where} returned an observation that is not finite ({nans} NaN, "
            f"{infinities} infinite); must be numbers that a network can take"
        )


def _check_reward(env_id: str, reward: float, where: str) -> None:
    if not math.isfinite(reward) or abs(reward) > _LARGEST:
        raise UnsupportedEnvironmentError(
            f"{env_id}: its {where} returned the reward {reward:g}, which is not finite in "
            "float32; must be a number that can be learned from"
        )


def _older_interface(env: CommonForm, env_id: str) -> str | None:
    """The fault, if the environment below all wrappers has the interface of an older gym."""
    inner = env.unwrapped
    try:
        result = inner.reset(seed=0)
        fault, where = why_no_reset(result), "reset()"
        if not fault:
            fault, where = why_no_step(inner.step(inner.action_space.sample())), "step()"
    except BaseException as error:  # noqa: BLE001 - an environment may raise anything
        if faults.is_ctrl_c(error):
            raise
        return None
    return f"{env_id}: its {where} {fault}" if fault else None
