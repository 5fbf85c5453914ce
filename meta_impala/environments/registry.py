"""From the name a person types to an environment.

The 57 Atari games and Catch are resolved from the tables below, without importing Gymnasium or the
emulator, so that a mistyped flag is refused at once.
"""

import dataclasses
import difflib
import importlib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from meta_impala.environments import atari, minatar_games
from meta_impala.environments.base import (
    BatchedEnvironment,
    UnknownEnvironmentError,
    UnsupportedEnvironmentError,
)
from meta_impala.environments.built_in import BUILT_IN, EVALUATED_IN

if TYPE_CHECKING:
    import gymnasium

# The games of the published 57-game tables.
ATARI_57 = (
    "Alien", "Amidar", "Assault", "Asterix", "Asteroids", "Atlantis", "BankHeist", "BattleZone",
    "BeamRider", "Berzerk", "Bowling", "Boxing", "Breakout", "Centipede", "ChopperCommand",
    "CrazyClimber", "Defender", "DemonAttack", "DoubleDunk", "Enduro", "FishingDerby", "Freeway",
    "Frostbite", "Gopher", "Gravitar", "Hero", "IceHockey", "Jamesbond", "Kangaroo", "Krull",
    "KungFuMaster", "MontezumaRevenge", "MsPacman", "NameThisGame", "Phoenix", "Pitfall", "Pong",
    "PrivateEye", "Qbert", "Riverraid", "RoadRunner", "Robotank", "Seaquest", "Skiing", "Solaris",
    "SpaceInvaders", "StarGunner", "Surround", "Tennis", "TimePilot", "Tutankham", "UpNDown",
    "Venture", "VideoPinball", "WizardOfWor", "YarsRevenge", "Zaxxon",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class EnvironmentSpec:
    """What a name means: its kind, its canonical id, and the game in CamelCase if it is Atari."""

    kind: Literal["atari", "gymnasium"]
    id: str
    game: str | None = None

    @property
    def action_repeat(self) -> int:
        """Environment frames per agent step."""
        return atari.ACTION_REPEAT if self.kind == "atari" else 1


@dataclasses.dataclass(frozen=True)
class Description:
    """What a network needs to know of an environment; the fields are as in `BatchedEnvironment`."""

    observation_shape: tuple[int, ...]
    observation_dtype: np.dtype
    num_actions: int
    action_repeat: int


def _atari_spec(game: str) -> EnvironmentSpec:
    return EnvironmentSpec("atari", f"ALE/{game}-v5", game)


def _names(spec: EnvironmentSpec) -> tuple[str, ...]:
    """Returns the lower-case names by which this environment may be asked for."""
    return (spec.id.lower(), spec.game.lower()) if spec.game else (spec.id.lower(),)


_QUICK = {name: spec for spec in map(_atari_spec, ATARI_57) for name in _names(spec)}
for _short, _id in (
    *BUILT_IN.items(),
    *((f"MinAtar/{game}", f"MinAtar/{game}-v1") for game in minatar_games.GAMES),
):
    _QUICK |= dict.fromkeys((_short.lower(), _id.lower()), EnvironmentSpec("gymnasium", _id))


def resolve(name: str) -> EnvironmentSpec:
    """Finds what a name means; the case of its letters does not matter.

    Args:
      name: `Pong` or `ALE/Pong-v5` (any game that ale-py registers), `Catch`, or a Gymnasium id,
        which may name the module that registers it (`my_module:MyEnv-v0`).

    Raises:
      UnknownEnvironmentError: nothing has this name; the message lists the nearest ones.
    """
    key = name.strip().lower()
    if key in _QUICK:
        return _QUICK[key]
    module, colon, _ = name.strip().rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except (ImportError, TypeError, ValueError) as error:  # the last two: no name of a module
            raise UnknownEnvironmentError(
                f"environment {name!r} names a module that cannot be imported: {error}"
            ) from error
        key = key.rpartition(":")[2]
    registered = {alias: spec for spec in _registered() for alias in _names(spec)}
    if key in registered:
        spec = registered[key]
        # The id keeps the module, so that another process can make the environment from it.
        return spec if spec.game else dataclasses.replace(spec, id=f"{module}{colon}{spec.id}")
    raise UnknownEnvironmentError(
        f"unknown environment {name!r}; {_suggestion(key, registered.values())}"
    )


def evaluated_in(name: str) -> str:
    """The environment in which an agent of this one is scored; in most cases, the same.

    A task with two phases, or with rewards that are mostly noise, has a registered variant for it.

    Raises:
      UnknownEnvironmentError: nothing has this name.
    """
    env_id = resolve(name).id
    return EVALUATED_IN.get(env_id, env_id)


def make(
    name: str,
    num_envs: int,
    protocol: str,
    num_threads: int = 1,
    max_episode_frames: int = atari.MAX_EPISODE_FRAMES,
    min_noops: int = 0,
    environment_kwargs: Mapping[str, Any] | None = None,
) -> BatchedEnvironment:
    """Makes a batch of environments.

    Args:
      name: as for `resolve`.
      num_envs: N, at least 1.
      protocol: "impala" or "machado" (see `atari.py`); checked, but of no effect, if this is not
        Atari.
      num_threads: the emulator's threads; Atari only.
      max_episode_frames: the time limit in frames; Atari only, a Gymnasium environment brings its
        own.
      min_noops: no-ops that a game begins with at least; Atari only.
      environment_kwargs: arguments of a Gymnasium environment's constructor.

    Raises:
      UnknownEnvironmentError: nothing has this name.
      UnsupportedEnvironmentError: it has continuous actions, say; the message is one line.
      ValueError: another argument is out of range.
    """
    atari.get_protocol(protocol)
    spec = resolve(name)
    if spec.game:
        _refuse_arguments(spec, environment_kwargs)
        return atari.AtariEnvironment(
            spec.game, num_envs, protocol, num_threads, max_episode_frames, min_noops
        )
    from meta_impala.environments import gymnasium_vector

    return gymnasium_vector.GymnasiumEnvironment(spec.id, num_envs, environment_kwargs)


def describe(
    name: str, protocol: str, environment_kwargs: Mapping[str, Any] | None = None
) -> Description:
    """Makes one environment, tries it for a few steps, and says what a network must know of it.

    Raises:
      UnknownEnvironmentError, UnsupportedEnvironmentError, ValueError: as `make`; also if it breaks
        Gymnasium's rules.
    """
    environment = make(name, 1, protocol, environment_kwargs=environment_kwargs)
    try:
        # Not by its type: that would import Gymnasium for the emulator's games.
        for env in getattr(environment, "envs", ()):
            from meta_impala.environments.contract import check_contract

            check_contract(env, resolve(name).id)
        return Description(
            observation_shape=environment.observation_shape,
            observation_dtype=environment.observation_dtype,
            num_actions=environment.num_actions,
            action_repeat=environment.action_repeat,
        )
    finally:
        environment.close()


def make_render(
    name: str,
    protocol: str,
    seed: int,
    max_episode_frames: int = atari.MAX_EPISODE_FRAMES,
    environment_kwargs: Mapping[str, Any] | None = None,
) -> "gymnasium.Env":
    """Makes one environment with `render_mode="rgb_array"` whose observations are those of `make`.

    It comes seeded: call `reset()` without a seed. For Atari, what differs is said at
      `atari.make_render`.

    Raises:
      UnknownEnvironmentError, UnsupportedEnvironmentError, ValueError: as `make`; also if it cannot
        render.
    """
    atari.get_protocol(protocol)
    spec = resolve(name)
    if spec.game:
        _refuse_arguments(spec, environment_kwargs)
        return atari.make_render(spec.game, protocol, seed, max_episode_frames)
    from meta_impala.environments import gymnasium_vector

    return gymnasium_vector.make_render(spec.id, seed, environment_kwargs)


def _refuse_arguments(spec: EnvironmentSpec, arguments: Mapping[str, Any] | None) -> None:
    if arguments:
        raise UnsupportedEnvironmentError(
            f"{spec.id} takes no --environment_kwargs; --protocol says how Atari games are played"
        )


def _registered() -> list[EnvironmentSpec]:
    """Returns all that Gymnasium and ale-py know. Importing them takes a moment."""
    import ale_py
    import gymnasium

    gymnasium.register_envs(ale_py)
    specs = []
    for env_id, entry in gymnasium.registry.items():
        if entry.namespace == "ALE" and entry.version == 5:
            specs.append(_atari_spec(entry.name))
        # The older Atari ids (PongNoFrameskip-v4) come without this project's preprocessing: not
        # offered.
        elif not str(entry.entry_point).startswith("ale_py"):
            specs.append(EnvironmentSpec("gymnasium", env_id))
    return specs


def _suggestion(key: str, specs: Iterable[EnvironmentSpec]) -> str:
    """Returns the nearest names, or, if none is near, what a name may be."""
    spelled = {(spec.game or spec.id).lower(): spec.game or spec.id for spec in specs} | {
        "catch": "Catch"
    }
    # People also type older ids: ALE/Pong-v4, PongNoFrameskip-v4, Pong-v5.
    bare = re.sub(r"(-ram)?(noframeskip|deterministic)?(-v\d+)?$", "", key.removeprefix("ale/"))
    near = difflib.get_close_matches(bare, spelled, n=1, cutoff=0.8)
    near = near or difflib.get_close_matches(key, spelled, n=3)
    if near:
        return f"did you mean {' or '.join(spelled[match] for match in near)}?"
    return "give an Atari game (Pong or ALE/Pong-v5), Catch, or a Gymnasium id (CartPole-v1)"
