"""From the name a user types to an environment.

The 57 Atari games, those of MinAtar and the tasks that come with the program are resolved from the
tables below, without importing Gymnasium or the emulator, so that a mistyped flag is refused at
once.
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
from meta_impala.environments.built_in import BUILT_IN, EVALUATED_IN, EVALUATION_ARGUMENTS
from meta_impala.system.streams import restore_streams

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
    """What a network needs to know of an environment; the fields are as in `BatchedEnvironment`.

    Attributes:
      game: in CamelCase if it is Atari.
    """

    observation_shape: tuple[int, ...]
    observation_dtype: np.dtype
    num_actions: int
    action_repeat: int
    game: str | None = None


def _atari_spec(game: str) -> EnvironmentSpec:
    return EnvironmentSpec("atari", f"ALE/{game}-v5", game)


def _names(spec: EnvironmentSpec) -> tuple[str, ...]:
    """Returns the lower-case names by which this environment may be asked for."""
    return (spec.id.lower(), spec.game.lower()) if spec.game else (spec.id.lower(),)


_QUICK = {name: spec for spec in map(_atari_spec, ATARI_57) for name in _names(spec)}
for _short, _id in (
    *BUILT_IN.items(),
    *((f"{minatar_games.NAMESPACE}{g}", minatar_games.id_of(g)) for g in minatar_games.GAMES),
):
    _QUICK |= dict.fromkeys((_short.lower(), _id.lower()), EnvironmentSpec("gymnasium", _id))


def as_saved(given: str, saved: str) -> str:
    """The name of the environment of a run that is continued.

    Args:
      given: the id that is asked for now.
      saved: the name in the run's config, which may be another one for the same environment.

    Returns:
      `saved` if both mean the same, else `given`.
    """
    try:
        return saved if resolve(saved).id == given else given
    except UnknownEnvironmentError:
        return given


def resolve(name: str) -> EnvironmentSpec:
    """Finds what a name means.

    The names of the 57 Atari games, of MinAtar's and of the tasks that come with the program are
    fixed, in any case of their letters: an environment that was registered under such a name needs
    its module (`my_module:Freeway`). Of other names, an id that is spelled exactly as it was
    registered wins; otherwise case does not matter, as long as the id is unique.

    Args:
      name: `Pong` or `ALE/Pong-v5` (any game that ale-py registers), a task that comes with the
        program (`Catch`), `MinAtar/Breakout`, or a Gymnasium id, which may name the module that
        registers it (`my_module:MyEnv-v0`). With a module, the id is the module's, even if
        an Atari game has that name.

    Raises:
      UnknownEnvironmentError: nothing has this name, or several have; the message lists the nearest
        ones. Or the module cannot be imported.
    """
    stripped = name.strip()
    if stripped.lower() in _QUICK:
        return _QUICK[stripped.lower()]
    module, colon, bare = stripped.rpartition(":")
    if any(char.isspace() or not char.isprintable() for char in stripped):
        raise UnknownEnvironmentError(f"unknown environment {name!r}; a name has no spaces")
    if module:
        _import(module, name)
        ids = _ids(with_games=False)
        if bare in ids:
            # The id keeps the module, so that another process can make the environment from it.
            return _with_module(ids[bare], module + colon)
    ids = _ids(with_games=True)
    if bare in ids:
        return _with_module(ids[bare], module + colon)
    key = bare.lower()
    found = [spec for env_id, spec in ids.items() if env_id.lower() == key]
    found = found or [spec for spec in ids.values() if key in _names(spec)]
    if len(found) > 1:
        names = " or ".join(spec.id for spec in found)
        raise UnknownEnvironmentError(
            f"environment {name!r} is ambiguous: {names} differ in case only; must be one of these"
        )
    if found:
        return _with_module(found[0], module + colon)
    raise UnknownEnvironmentError(f"unknown environment {name!r}; {_suggestion(key, ids.values())}")


def _with_module(spec: EnvironmentSpec, prefix: str) -> EnvironmentSpec:
    return spec if spec.game else dataclasses.replace(spec, id=f"{prefix}{spec.id}")


def _import(module: str, name: str) -> None:
    """Imports the module in a name; whatever that raises becomes one line."""
    refusal = f"environment {name!r} names a module that cannot be imported"
    if not all(part.isidentifier() for part in module.split(".")):
        raise UnknownEnvironmentError(f"{refusal}: {module!r} is not the name of a module")
    from meta_impala.environments import faults

    try:
        with atari.short_names_hidden(), faults.ending_copies(module):
            importlib.import_module(module)
    except BaseException as error:  # noqa: BLE001 - a stranger's program may raise anything
        reason = faults.import_failure(error, module)
        raise UnknownEnvironmentError(f"{refusal}: {reason}") from error


def evaluated_in(
    name: str, environment_kwargs: Mapping[str, Any] | None = None
) -> tuple[str, dict[str, Any]]:
    """The environment in which an agent of this one is scored; in most cases, the same.

    A task with two phases, or with rewards that are mostly noise, has a registered variant for it.

    Args:
      name, environment_kwargs: of the environment that the agent was trained in.

    Returns:
      Its name and its arguments: those given, without what a variant fixes to make it a score.

    Raises:
      UnknownEnvironmentError: nothing has this name.
    """
    env_id, given = resolve(name).id, environment_kwargs or {}
    variant = EVALUATED_IN.get(env_id)
    if variant is None:
        return env_id, dict(given)
    fixed = EVALUATION_ARGUMENTS.get(variant, {})
    return variant, {key: value for key, value in given.items() if key not in fixed}


def time_limit(name: str, environment_kwargs: Mapping[str, Any] | None = None) -> int | None:
    """The time limit of a game in environment frames, or None if it has none that is known.

    Args:
      name: of the environment.
      environment_kwargs: its arguments; Gymnasium takes a `max_episode_steps` among them in place
        of the registered limit, and -1 for none.

    Raises:
      UnknownEnvironmentError: nothing has this name.
    """
    spec = resolve(name)
    if spec.game:
        return atari.MAX_EPISODE_FRAMES
    given = (environment_kwargs or {}).get("max_episode_steps")
    if given is not None:
        return given if isinstance(given, int) and given > 0 else None
    import gymnasium

    # Its entry has no module in its name.
    entry = gymnasium.registry.get(spec.id.rpartition(":")[2])
    return None if entry is None else entry.max_episode_steps


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
      protocol: "impala" or "machado" (see `atari.py`); checked, but without effect, if this is not
        Atari.
      num_threads: the emulator's threads; Atari only.
      max_episode_frames: the time limit in frames; Atari only, a Gymnasium environment has its
        own.
      min_noops: least number of no-ops at the start of a game; Atari only.
      environment_kwargs: arguments of a Gymnasium environment's constructor.

    Raises:
      UnknownEnvironmentError: nothing has this name.
      UnsupportedEnvironmentError: for example, it has continuous actions; the message is one line.
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
    name: str,
    protocol: str,
    environment_kwargs: Mapping[str, Any] | None = None,
    *,
    in_thread: bool = True,
) -> Description:
    """Makes one environment, tries it for a few steps, and describes it for the network.

    Args:
      name, protocol, environment_kwargs: as for `make`.
      in_thread: whether it is tried in another thread than this one, which makes it, as actor
        threads and evaluations play; otherwise in this one.

    Raises:
      UnknownEnvironmentError, UnsupportedEnvironmentError, ValueError: as `make`; also if it breaks
        Gymnasium's rules.
    """
    environment = make(name, 1, protocol, environment_kwargs=environment_kwargs)
    trial = None
    try:
        # Not by its type: that would import Gymnasium for the emulator's games.
        for env in getattr(environment, "envs", ()):
            from meta_impala.environments.contract import Trial, check_contract

            if not in_thread:
                check_contract(env, resolve(name).id)
                continue
            trial = Trial(env, resolve(name).id)
            trial.start()
            trial.finish()
        return Description(
            observation_shape=environment.observation_shape,
            observation_dtype=environment.observation_dtype,
            num_actions=environment.num_actions,
            action_repeat=environment.action_repeat,
            game=resolve(name).game,
        )
    finally:
        # After a Ctrl-C the thread may still be inside it.
        if trial is None or not trial.is_alive():
            environment.close()
        restore_streams()


def make_render(
    name: str,
    protocol: str,
    seed: int,
    max_episode_frames: int = atari.MAX_EPISODE_FRAMES,
    environment_kwargs: Mapping[str, Any] | None = None,
) -> "gymnasium.Env":
    """Makes one environment with `render_mode="rgb_array"` whose observations are those of `make`.

    It comes seeded: call `reset()` without a seed. For Atari, see `atari_render.make_render`
    for the differences.

    Raises:
      UnknownEnvironmentError, UnsupportedEnvironmentError, ValueError: as `make`; also if it cannot
        render.
    """
    atari.get_protocol(protocol)
    spec = resolve(name)
    if spec.game:
        _refuse_arguments(spec, environment_kwargs)
        from meta_impala.environments import atari_render

        return atari_render.make_render(spec.game, protocol, seed, max_episode_frames)
    from meta_impala.environments import gymnasium_vector

    return gymnasium_vector.make_render(spec.id, seed, environment_kwargs)


def _refuse_arguments(spec: EnvironmentSpec, arguments: Mapping[str, Any] | None) -> None:
    if arguments:
        raise UnsupportedEnvironmentError(
            f"{spec.id} takes no --environment_kwargs; --protocol says how Atari games are played"
        )


def _ids(with_games: bool) -> dict[str, EnvironmentSpec]:
    """Gymnasium's registry, by exact id. Importing it takes a moment.

    Args:
      with_games: whether all games of ale-py, and of MinAtar if it is installed, are included.
    """
    import gymnasium

    if with_games:
        atari.register_games()
        if minatar_games.is_installed():
            minatar_games.register()
    specs = {}
    for env_id, entry in gymnasium.registry.items():
        is_games_own = str(entry.entry_point).startswith("ale_py")
        if is_games_own and entry.namespace == "ALE" and entry.version == 5:
            specs[env_id] = _atari_spec(entry.name)
        # The older Atari ids (PongNoFrameskip-v4) come without this project's preprocessing: not
        # offered.
        elif not is_games_own:
            specs[env_id] = EnvironmentSpec("gymnasium", env_id)
    return specs


def _suggestion(key: str, specs: Iterable[EnvironmentSpec]) -> str:
    """Returns the nearest names, or, if none is near, examples of names."""
    spelled = {(spec.game or spec.id).lower(): spec.game or spec.id for spec in specs}
    short = (*BUILT_IN, *(f"{minatar_games.NAMESPACE}{game}" for game in minatar_games.GAMES))
    spelled |= {name.lower(): name for name in short}
    # People also type older ids: ALE/Pong-v4, PongNoFrameskip-v4, Pong-v5.
    bare = re.sub(r"(-ram)?(noframeskip|deterministic)?(-v\d+)?$", "", key.removeprefix("ale/"))
    near = difflib.get_close_matches(bare, spelled, n=1, cutoff=0.8)
    near = near or difflib.get_close_matches(key, spelled, n=3)
    if near:
        return f"did you mean {' or '.join(spelled[match] for match in near)}?"
    return (
        "give an Atari game (Pong or ALE/Pong-v5), Catch, MinAtar/Breakout, or a Gymnasium id "
        "(CartPole-v1, my_module:MyEnv-v0)"
    )
