"""Records games and draws starts from them: points from which an evaluation can continue.

A person plays what the agent sees, one picture per agent step, so that what was recorded is exactly
what is replayed. No TensorFlow here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from meta_impala.config.image_layout import is_channels_first
from meta_impala.environments import BatchedEnvironment, registry
from meta_impala.environments.base import Transition, WrappedEnvironment
from meta_impala.errors import UserError
from meta_impala.evaluation.starts import Start, digest, game_seeds
from meta_impala.evaluation.watched_environment import picture_of

# At most, in pixels, of what is shown enlarged.
_PICTURE_HEIGHT, _PICTURE_WIDTH = 420, 1900


class Recording(NamedTuple):
    """A game: seed, the actions taken, and the digest of the observation after each."""

    seed: int
    actions: list[int]
    digests: list[str]


class RecordedGames(WrappedEnvironment):
    """An environment of one game that records every game played in it, in `recordings`.

    Nothing is recorded after the end of a game until the next `reset`.
    """

    def __init__(self, inner: BatchedEnvironment) -> None:
        if inner.num_envs != 1:
            raise ValueError(f"num_envs is {inner.num_envs}; must be 1")
        super().__init__(inner)
        self._over = True
        self.recordings: list[Recording] = []

    def _restart(self, seed: int) -> np.ndarray:
        self.recordings.append(Recording(seed, [], []))
        self._over = False
        return super()._restart(seed)

    def _advance(self, actions: np.ndarray) -> Transition:
        transition = super()._advance(actions)
        # The observation after an end belongs to the next game.
        self._over = self._over or bool(transition.episode_ends[0])
        if not self._over:
            self.recordings[-1].actions.append(int(actions[0]))
            self.recordings[-1].digests.append(digest(transition.observations[0]))
        return transition


def draw_starts(
    recordings: Sequence[Recording], count: int, seed: int, max_steps: int
) -> list[Start]:
    """Draws starts: a game, then a point within it, both uniformly.

    Args:
      recordings: games; those without a step are left out.
      count: how many starts; a point may be drawn twice if there are few.
      seed: of the draw.
      max_steps: latest agent step of a start.

    Raises:
      UserError: if nothing was recorded.
    """
    played = [recording for recording in recordings if recording.actions]
    if not played:
        raise UserError("no game was recorded, so there are no starts to draw")
    random = np.random.default_rng(seed)
    starts = []
    for _ in range(count):
        recording = played[random.integers(len(played))]
        steps = int(random.integers(1, min(len(recording.actions), max_steps) + 1))
        actions = tuple(recording.actions[:steps])
        starts.append(Start(recording.seed, actions, recording.digests[steps - 1]))
    return starts


class PlayableGame(gymnasium.Env[np.ndarray, np.int64]):
    """A one-game environment as Gymnasium's `play` wants it; every reset is another seeded game."""

    # Gymnasium declares this as an instance attribute.
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    render_mode = "rgb_array"

    def __init__(self, environment: BatchedEnvironment, seed: int) -> None:
        self._environment = environment
        self._seed = seed
        self._games = 0
        self.observation_space = gymnasium.spaces.Box(
            -np.inf, np.inf, environment.observation_shape, np.float32
        )
        self.action_space = gymnasium.spaces.Discrete(environment.num_actions)
        self._observation = np.zeros(environment.observation_shape)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts the next game; `seed` has no effect."""
        game_seed, _ = game_seeds(self._seed, self._games)
        self._games += 1
        self._observation = self._environment.reset(game_seed)[0]
        return self._observation, {}

    def step(
        self, action: int | np.integer
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Takes an action; a game ends when it is over, not when a life is lost."""
        step = self._environment.step(np.array([action]))
        self._observation = step.observations[0]
        return self._observation, float(step.rewards[0]), bool(step.episode_ends[0]), False, {}

    def render(self) -> np.ndarray:
        """What the agent sees, as `[H, W, 3]` uint8; of a stack of grey pictures in bytes the
        newest."""
        observation = np.asarray(self._observation)
        if _is_stack(observation):
            observation = observation[-1]
        picture = picture_of(observation)
        height, width, _ = picture.shape
        factor = max(1, min(_PICTURE_HEIGHT // height, _PICTURE_WIDTH // width))
        return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def _is_stack(observation: np.ndarray) -> bool:
    """Whether it is `[S, H, W]` of bytes, the newest picture last; with S = 3 that is one picture
    in colour."""
    shape = observation.shape
    return (
        observation.dtype == np.uint8
        and len(shape) == 3
        and is_channels_first(shape)
        and shape[0] != 3
    )


def keys_to_actions(
    environment: str, protocol: str, num_actions: int
) -> dict[tuple[str, ...], int]:
    """Which keys take which action: those of ale-py for Atari (w, a, s, d and space), else the
    digits."""
    spec = registry.resolve(environment)
    if spec.game is None:
        return {(str(action),): action for action in range(min(num_actions, 10))}
    import ale_py

    from meta_impala.environments.atari import get_protocol

    gymnasium.register_envs(ale_py)
    game: Any = gymnasium.make(
        spec.id,
        full_action_space=get_protocol(protocol).full_action_set,
        disable_env_checker=True,
    )
    keys = game.unwrapped.get_keys_to_action()
    game.close()
    return keys


def record_person(
    environment: BatchedEnvironment,
    keys: dict[tuple[str, ...], int],
    seed: int,
    frames_per_second: float,
    on_start: Callable[[], None] = lambda: None,
) -> list[Recording]:
    """Lets a person play, until the window is closed or Ctrl-C; returns their games.

    Args:
      environment: of one game.
      keys: as `keys_to_actions`.
      seed: of the games.
      frames_per_second: agent steps a second.
      on_start: called before the window opens.

    Raises:
      UserError: if pygame is not installed, or finds no screen.
    """
    try:
        import pygame
        from gymnasium.utils.play import play
    except (ImportError, gymnasium.error.DependencyNotInstalled):
        raise UserError(
            "playing needs pygame, which is missing; install it with: pip install "
            "'meta_impala[play]'"
        ) from None
    recorded = RecordedGames(environment)
    on_start()
    game, fps = PlayableGame(recorded, seed), max(1, round(frames_per_second))
    try:
        play(game, keys_to_action=keys, fps=fps)
    except KeyboardInterrupt:  # what was played so far counts
        pass
    except pygame.error as error:
        raise UserError(f"playing needs a screen, and pygame finds none ({error})") from None
    return recorded.recordings
