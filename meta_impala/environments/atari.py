"""Atari 2600 games through ale-py's vectorised emulator, under one of two published protocols.

"impala" is the protocol of Espeholt et al. 2018, which Xu et al. 2018 follow (84×84 grey, action
repeat 4, maximum over the last 2 frames, stack of 4, no-op starts, life loss terminal for the
learner, minimal action set); "machado" is that of Machado et al. 2018 (sticky actions, all 18
actions, no life-loss signal). ale-py's defaults differ from both in several places, so every option
that matters is set here explicitly.
"""

import contextlib
import dataclasses
import pathlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from meta_impala.environments.base import (
    SEED_LIMIT,
    BatchedEnvironment,
    Transition,
    check_num_envs,
)

ACTION_REPEAT = 4
STACK_SIZE = 4
SCREEN_SIZE = 84
MAX_EPISODE_FRAMES = 108_000  # 30 minutes at 60 frames a second.
_SEED_STEP = 1_000_003  # from a seed whose draw is refused to the next; a prime


@dataclasses.dataclass(frozen=True)
class AtariProtocol:
    """What differs between the published ways to train on Atari.

    Attributes:
      repeat_action_probability: chance, per frame, that the emulator repeats the previous action.
      full_action_set: all 18 actions, or only those that the game uses.
      max_noops: a game starts with 0 to `max_noops` frames of no-op, drawn uniformly. They do not
        count towards the episode's length.
      terminal_on_life_loss: a lost life is terminal for the learner; the game continues.
    """

    repeat_action_probability: float
    full_action_set: bool
    max_noops: int
    terminal_on_life_loss: bool


PROTOCOLS = {
    # The paper draws 1 to 30 no-ops; the emulator draws from 0 on, so this is 0 to 30.
    "impala": AtariProtocol(
        repeat_action_probability=0.0,
        full_action_set=False,
        max_noops=30,
        terminal_on_life_loss=True,
    ),
    "machado": AtariProtocol(
        repeat_action_probability=0.25,
        full_action_set=True,
        max_noops=0,
        terminal_on_life_loss=False,
    ),
}


def get_protocol(name: str) -> AtariProtocol:
    """Returns the protocol of this name, or raises ValueError that lists the names."""
    if name not in PROTOCOLS:
        raise ValueError(f"unknown Atari protocol {name!r}; choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


class AtariEnvironment(BatchedEnvironment):
    """N copies of one game; observations [N, 4, 84, 84] uint8, the newest frame last.

    The stack after a game's start is padded with zeros. Where the time limit cuts a game, the
    newest frame of `final_observations` is one agent step old, because the emulator stops before it
    draws the last frame.

    Attributes:
      emulators: ale-py's, without what is added here; None once closed.
    """

    def __init__(
        self,
        game: str,
        num_envs: int,
        protocol: str | AtariProtocol,
        num_threads: int = 1,
        max_episode_frames: int = MAX_EPISODE_FRAMES,
        min_noops: int = 0,
    ) -> None:
        """Loads the game.

        Args:
          game: name in CamelCase, as in "MsPacman".
          num_envs: N. Each copy takes about 0.1 s to make, and as long again to seed.
          protocol: "impala", "machado", or one of your own.
          num_threads: the emulator's own threads. Rollouts do not depend on it.
          max_episode_frames: frames, no-ops at the start not counted, after which a game is
            truncated.
          min_noops: `reset` draws again until every game has at least this many no-ops. Games that
            start after another's end have as many as the emulator draws.

        Raises:
          ValueError: an argument is out of range.
        """
        check_num_envs(num_envs)
        if num_threads < 1:
            raise ValueError(f"num_threads is {num_threads}; the emulator needs at least 1")
        check_max_episode_frames(max_episode_frames)
        if isinstance(protocol, str):
            protocol = get_protocol(protocol)
        if not 0 <= min_noops <= protocol.max_noops:
            raise ValueError(f"min_noops is {min_noops}; must be from 0 to {protocol.max_noops}")

        register_games()
        from ale_py import AtariVectorEnv
        from gymnasium.vector import AutoresetMode

        self._protocol = protocol
        emulators: Any = AtariVectorEnv(
            _rom_id(game),
            num_envs,
            num_threads=num_threads,
            autoreset_mode=AutoresetMode.SAME_STEP,
            # Counted in frames, not agent steps, and without the no-ops.
            max_num_frames_per_episode=max_episode_frames,
            repeat_action_probability=protocol.repeat_action_probability,
            full_action_space=protocol.full_action_set,
            img_height=SCREEN_SIZE,
            img_width=SCREEN_SIZE,
            grayscale=True,
            stack_num=STACK_SIZE,
            frameskip=ACTION_REPEAT,
            maxpool=True,
            # The emulator draws from 0 to noop_max − 1.
            noop_max=protocol.max_noops + 1 if protocol.max_noops else 0,
            # Would press FIRE in every game that has it, and count that as one of the no-ops.
            use_fire_reset=False,
            # Would restart the whole game at each lost life.
            episodic_life=False,
            # Would report "terminated" both for a lost life and for a game over.
            life_loss_info=False,
            reward_clipping=False,
        )
        super().__init__(
            num_envs=num_envs,
            num_actions=int(emulators.single_action_space.n),
            observation_shape=emulators.single_observation_space.shape,
            observation_dtype=np.dtype(np.uint8),
            action_repeat=ACTION_REPEAT,
        )
        self.emulators: Any = emulators
        self._min_noops = min_noops
        self._lives = np.zeros(num_envs, np.int32)

    def close(self) -> None:
        super().close()
        # Threads and memory are freed with the last reference.
        self.emulators = None

    def _restart(self, seed: int) -> np.ndarray:
        if self.emulators is None:
            raise RuntimeError("this environment was closed; make a new one")
        seeds = seed + np.arange(self.num_envs)
        observations, info = self.emulators.reset(seed=seeds)
        # No action was taken yet, so the frames of a game are its no-ops.
        while self._min_noops and (too_few := info["episode_frame_number"] < self._min_noops).any():
            seeds = (seeds + _SEED_STEP) % SEED_LIMIT
            observations, info = self.emulators.reset(
                seed=seeds[too_few], options={"reset_mask": too_few}
            )
        self._lives = np.array(info["lives"])
        return observations

    def _advance_others(self, actions: np.ndarray, waiting: np.ndarray) -> Transition:
        # The emulator steps all games or none. Those that wait take a step that is discarded, and
        # are restarted: a time limit is reached once in 27,000 steps.
        transition = self._advance(actions)
        observations, info = self.emulators.reset(options={"reset_mask": waiting})
        self._lives = np.where(waiting, info["lives"], self._lives)
        shown = transition.observations.copy()
        shown[waiting] = observations[waiting]
        return transition._replace(
            observations=shown,
            rewards=np.where(waiting, 0, transition.rewards),
            terminations=transition.terminations & ~waiting,
            truncations=transition.truncations & ~waiting,
            episode_ends=transition.episode_ends & ~waiting,
        )

    def _advance(self, actions: np.ndarray) -> Transition:
        observations, rewards, game_overs, truncations, info = self.emulators.step(actions)
        ends = game_overs | truncations
        terminations = game_overs
        lives = np.array(info["lives"])
        if self._protocol.terminal_on_life_loss:
            # Where a game ended, `lives` are already those of the next one, and may be fewer (a
            # bonus life gone) or more: they say nothing about this step. So a life lost on the very
            # frame of the time limit stays unseen, and the step is a truncation.
            terminations = game_overs | ((lives < self._lives) & ~ends)
        self._lives = lives
        return Transition(
            observations=observations,
            rewards=rewards,
            terminations=terminations,
            truncations=truncations,
            final_observations=info.get("final_obs"),
            episode_ends=ends,
        )


_registering = threading.Lock()


def register_games() -> None:
    """Imports ale-py, which registers its games with Gymnasium.

    It also registers short names such as Pong-v0, and replaces or refuses what a user registered
    under such a name before. So it gets an empty registry, and the earlier entries are put back
    over it.
    """
    import gymnasium

    with _registering:
        if "ale_py" in sys.modules:
            return
        others = dict(gymnasium.registry)
        gymnasium.registry.clear()
        try:
            import ale_py

            gymnasium.register_envs(ale_py)
        finally:
            gymnasium.registry.update(others)


@contextlib.contextmanager
def short_names_hidden() -> Iterator[None]:
    """Lets a module register own environments under short names that ale-py took before."""
    import gymnasium

    registry = gymnasium.registry
    hidden = {
        name: entry
        for name, entry in registry.items()
        if str(entry.entry_point).startswith("ale_py") and entry.namespace is None
    }
    for name in hidden:
        del registry[name]
    try:
        yield
    finally:
        for name, entry in hidden.items():
            registry.setdefault(name, entry)


def check_max_episode_frames(max_episode_frames: int) -> None:
    """Raises ValueError unless it is a positive multiple of the action repeat."""
    # A limit within an action's repeat would make the last agent step shorter, and the frame counts
    # inexact.
    if max_episode_frames < ACTION_REPEAT or max_episode_frames % ACTION_REPEAT:
        raise ValueError(
            f"max_episode_frames is {max_episode_frames}; it must be a positive multiple of the "
            f"action repeat, {ACTION_REPEAT}"
        )


def rom_path(game: str) -> pathlib.Path:
    """The file of a game's ROM, which comes with ale-py."""
    from ale_py import roms

    return pathlib.Path(str(roms.get_rom_path(_rom_id(game))))


def _rom_id(game: str) -> str:
    """Returns ale-py's snake_case name of a game: "ms_pacman" for "MsPacman"."""
    from ale_py import roms

    for rom_id in roms.get_all_rom_ids():
        if rom_id.replace("_", "") == game.lower():
            return rom_id
    raise ValueError(f"ale-py has no game {game!r}; names are in CamelCase, as in MsPacman")
