"""One Gymnasium environment in the form that actors and videos use, with every result checked.

Actions are 0 to n − 1, observations float32 or uint8 arrays, rewards floats, ends bools. What an
environment returns beyond that (`info`) is never read. Observations are copied, because an
environment may write the next one into the same array.
"""

import inspect
import os
import re
from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from gymnasium.wrappers import FilterObservation, FlattenObservation

from meta_impala.environments import faults
from meta_impala.environments.base import EnvironmentFailed, UnsupportedEnvironmentError
from meta_impala.errors import text_of, warn

_REGISTER = (
    "register a function that returns the wrapped environment "
    "(gymnasium.register('Mine-v0', entry_point=function))"
)
_OLDER = "for an environment of an older gym, use shimmy.GymV21CompatibilityV0: " + _REGISTER
_warned: set[str] = set()


class CommonForm(gymnasium.Wrapper):
    """See the module. `reset` and `step` return an empty `info`."""

    def __init__(self, env: "gymnasium.Env[Any, Any]", env_id: str) -> None:
        """Wraps an environment with Discrete actions and a Box observation of numbers."""
        super().__init__(env)
        self._env_id = env_id
        actions, observations = env.action_space, env.observation_space
        assert isinstance(actions, Discrete) and isinstance(observations, Box)
        self._start = int(actions.start)
        # The type that `sample()` returns: `contains` and dictionaries of actions accept it like an
        # int.
        self._action_type = np.dtype(actions.dtype).type
        self._shape = observations.shape
        self._dtype = np.dtype(np.uint8 if observations.dtype == np.uint8 else np.float32)
        self._safe_dtypes = {self._dtype, np.dtype(np.bool_)}
        self.action_space = Discrete(int(actions.n))
        low, high = (np.asarray(end, self._dtype) for end in (observations.low, observations.high))
        self.observation_space = Box(low, high, self._shape, self._dtype.type)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        given = {"seed": seed, "options": options}
        try:
            with faults.ending_copies(self._env_id):
                result = self.env.reset(**{k: v for k, v in given.items() if v is not None})
        except BaseException as error:  # noqa: BLE001 - an environment may raise anything
            unknown = re.search(r"unexpected keyword argument '(seed|options)'", text_of(error))
            if isinstance(error, TypeError) and unknown:
                raise self._failure(
                    "reset()",
                    f"takes no {unknown[1]}; must be reset(self, seed=None, options=None)",
                ) from error
            self._raise_failure("reset()", error)
        if fault := why_no_reset(result):
            raise self._failure("reset()", fault)
        return self._observation(result[0], "reset()"), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        process = os.getpid()
        try:
            result = self.env.step(self._action_type(self._start + action))
        except BaseException as error:  # noqa: BLE001 - likewise
            if os.getpid() != process:  # as `ending_copies`, which takes longer
                faults.end_copy(self._env_id)
            self._raise_failure("step()", error)
        if os.getpid() != process:
            faults.end_copy(self._env_id)
        if fault := why_no_step(result):
            raise self._failure("step()", fault)
        observation, reward, terminated, truncated, _ = result
        return (
            self._observation(observation, "step()"),
            reward if type(reward) is float else self._reward(reward),
            terminated if type(terminated) is bool else self._end(terminated, "terminated"),
            truncated if type(truncated) is bool else self._end(truncated, "truncated"),
            {},
        )

    def close(self) -> None:
        """Closes it. If that raises, there is one warning."""
        try:
            with faults.ending_copies(self._env_id):
                self.env.close()
        except BaseException as error:  # noqa: BLE001 - likewise
            if faults.is_ctrl_c(error):
                raise
            _warn_once(
                f"{self._env_id}: its close() raised {faults.describe(error)}; this is ignored"
            )

    def _raise_failure(self, where: str, error: BaseException) -> NoReturn:
        if isinstance(error, Exception) and faults.is_in_flatten(error):
            raise self._failure(
                where,
                "returned an observation that its observation_space does not contain "
                f"({faults.describe(error)})",
            ) from error
        faults.raise_failure(self._env_id, where, error)

    def _failure(self, where: str, what: str) -> EnvironmentFailed:
        return EnvironmentFailed(f"{self._env_id}: its {where} {what}")

    def _observation(self, observation: Any, where: str) -> np.ndarray:
        """A copy as float32 or uint8, if shape and dtype are those of the space."""
        if type(observation) is not np.ndarray:
            if observation is None or isinstance(observation, str | bytes | dict):
                raise self._failure(
                    where, f"returned an observation of type {type(observation).__name__}"
                )
            try:
                observation = np.asarray(observation)
            except Exception as error:  # noqa: BLE001 - likewise
                raise self._failure(
                    where, f"returned an observation that is not an array: {text_of(error)}"
                ) from error
        if observation.shape != self._shape:
            raise self._failure(
                where,
                f"returned an observation of shape {observation.shape}, its observation_space has "
                f"{self._shape}; fix the space, or use gymnasium.wrappers.ReshapeObservation: "
                f"{_REGISTER}",
            )
        if observation.dtype not in self._safe_dtypes:
            self._check_dtype(observation, where)
        with np.errstate(over="ignore"):  # a float64 beyond float32 is infinite
            return np.array(observation, self._dtype)

    def _check_dtype(self, observation: np.ndarray, where: str) -> None:
        kind = observation.dtype.kind
        if self._dtype == np.float32 and kind in "iuf":
            self._safe_dtypes.add(observation.dtype)
        elif not (kind in "iu" and np.all((observation >= 0) & (observation <= 255))):
            raise self._failure(
                where,
                f"returned an observation of dtype {observation.dtype}, its observation_space has "
                f"{self.env.observation_space.dtype}; fix the space, or use "
                f"gymnasium.wrappers.DtypeObservation: {_REGISTER}",
            )

    def _reward(self, reward: Any) -> float:
        try:
            if reward is None or isinstance(reward, str | bytes):
                raise TypeError
            return float(np.asarray(reward, np.float64).item())
        except Exception:  # noqa: BLE001 - it may be an object of the environment's own
            raise self._failure(
                "step()", f"returned the reward {_short(reward)}, must be one number"
            ) from None

    def _end(self, end: Any, name: str) -> bool:
        try:
            value = np.asarray(end)
        except Exception:  # noqa: BLE001 - likewise
            value = np.empty(0)
        if value.size != 1 or value.dtype.kind not in "biu":
            raise self._failure(
                "step()", f"returned {_short(end)} for {name}, must be True or False"
            )
        return bool(value.item())


def why_no_reset(result: Any) -> str | None:
    """What is wrong with the result of `reset`, if it is not a pair; None if it is."""
    if isinstance(result, tuple) and len(result) == 2:
        return None
    return f"returned {_kind(result)}, must return (observation, info); {_OLDER}"


def why_no_step(result: Any) -> str | None:
    """The same for `step`."""
    if isinstance(result, tuple) and len(result) == 5:
        return None
    return (
        f"returned {_kind(result)}, must return (observation, reward, terminated, truncated, "
        f"info); {_OLDER}"
    )


def in_common_form(env: "gymnasium.Env[Any, Any]", env_id: str) -> CommonForm:
    """The environment in common form; observations of several parts are flattened.

    `Discrete` and `MultiBinary` observations, and `Dict` and `Tuple` of such and of arrays, become
    one vector by Gymnasium's own `FlattenObservation`. Entries of a `Dict` that are not numbers
    (the text of a mission) are left out with a warning.

    Raises:
      UnsupportedEnvironmentError: its actions or observations are of another kind.
    """
    for name in ("action_space", "observation_space"):
        try:
            space = getattr(env, name, None)
        except BaseException as error:  # noqa: BLE001 - a property may raise anything
            if faults.is_ctrl_c(error):
                raise
            raise UnsupportedEnvironmentError(
                f"{env_id} cannot be used: its {name} raised {faults.describe(error)}"
            ) from error
        if not isinstance(space, gymnasium.Space):
            raise UnsupportedEnvironmentError(
                f"{env_id} cannot be used: it declares no {name}, must be a gymnasium.spaces.Space "
                "that its constructor sets"
            )
    actions = env.action_space
    if isinstance(actions, Box):
        raise UnsupportedEnvironmentError(
            f"{env_id} cannot be used: its actions are continuous ({actions}), only discrete ones "
            "are supported"
        )
    if not isinstance(actions, Discrete):
        raise UnsupportedEnvironmentError(
            f"{env_id} cannot be used: its actions are {type(actions).__name__}, only Discrete "
            f"ones are supported; gymnasium.wrappers.TransformAction helps: {_REGISTER}"
        )
    return CommonForm(_flat(env, env_id), env_id)


def _flat(env: "gymnasium.Env[Any, Any]", env_id: str) -> "gymnasium.Env[Any, Any]":
    space = env.observation_space
    if isinstance(space, gymnasium.spaces.Dict):
        parts = {key: part for key, part in space.spaces.items() if _is_numeric(part)}
        left_out = [key for key in space.spaces if key not in parts]
        if parts and left_out:
            names = ", ".join(map(str, left_out))
            _warn_once(f"{env_id}: {names} of its observations: not numbers, left out")
            env = FilterObservation(env, list(parts))
            space = env.observation_space
    if not _is_numeric(space):
        raise UnsupportedEnvironmentError(
            f"{env_id} cannot be used: its observations are {_name(space)}, only arrays of numbers "
            "(Box), and what gymnasium.wrappers.FlattenObservation makes an array of, are "
            f"supported; gymnasium.wrappers.TransformObservation helps: {_REGISTER}"
        )
    try:
        flat = env if isinstance(space, Box) else FlattenObservation(env)
        size = int(np.prod(flat.observation_space.shape or (1,)))
    except Exception as error:  # noqa: BLE001 - no parts at all, or more than memory holds
        raise UnsupportedEnvironmentError(
            f"{env_id} cannot be used: its observations cannot be flattened "
            f"({faults.describe(error)}): {_short(space)}"
        ) from error
    if size == 0:
        raise UnsupportedEnvironmentError(
            f"{env_id} cannot be used: its observations have no numbers ({_short(space)})"
        )
    return flat


def _is_numeric(space: gymnasium.Space) -> bool:
    """Whether a space consists of numbers. (Gymnasium would flatten text too.)"""
    if isinstance(space, Box):
        return bool(space.dtype.kind in "biuf")
    if isinstance(space, gymnasium.spaces.Dict):
        return all(map(_is_numeric, space.spaces.values()))
    if isinstance(space, gymnasium.spaces.Tuple):
        return all(map(_is_numeric, space.spaces))
    return isinstance(space, Discrete | MultiDiscrete | MultiBinary)


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warn(f"warning: {message}")


def _name(space: gymnasium.Space) -> str:
    return f"arrays of {space.dtype}" if isinstance(space, Box) else type(space).__name__


def _kind(result: Any) -> str:
    if isinstance(result, tuple):
        return f"{len(result)} values"
    if inspect.iscoroutine(result):
        result.close()  # or Python warns that nobody awaited it
    return f"one {type(result).__name__}"


def _short(value: Any) -> str:
    return " ".join(text_of(value, repr).split())[:60]
