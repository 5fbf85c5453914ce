"""One Atari game that can be rendered, which the vectorised emulator of `atari.py` cannot.

For videos and for watching. What the agent sees equals `AtariEnvironment`'s observations bit for
bit: the frames are shrunk as there, by area, with OpenCV's sums in single precision.
"""

from __future__ import annotations

import functools
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import FrameStackObservation

from meta_impala.environments.atari import (
    ACTION_REPEAT,
    MAX_EPISODE_FRAMES,
    SCREEN_SIZE,
    STACK_SIZE,
    AtariProtocol,
    check_max_episode_frames,
    get_protocol,
    register_games,
)

# A smaller part of a pixel has no weight, as in OpenCV's INTER_AREA.
_LEAST_PART = 1e-3


def shrink(screen: np.ndarray) -> np.ndarray:
    """Averages over the area of each new pixel, as OpenCV's INTER_AREA does.

    Args:
      screen: `[H, W]` uint8, both sides at least 84.

    Returns:
      `[84, 84]` uint8.
    """
    # Columns first: the order of the sums decides which way a tie is rounded.
    narrow = _weighted_rows(screen.T.astype(np.float32))
    return np.rint(_weighted_rows(narrow.T)).astype(np.uint8)


def _weighted_rows(rows: np.ndarray) -> np.ndarray:
    """`[H, W]` to `[84, W]`, float32."""
    indices, weights = _parts(rows.shape[0])
    total = np.zeros((SCREEN_SIZE, rows.shape[1]), np.float32)
    for index, weight in zip(indices, weights, strict=True):
        total += rows[index] * weight[:, np.newaxis]
    return total


@functools.cache
def _parts(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels of a side of this size are in each new pixel, and their weights: `[K, 84]`.

    K is the largest number of pixels in one; the others are filled up with weights of 0.
    """
    scale = size / SCREEN_SIZE
    most = int(np.ceil(scale)) + 1
    indices = np.zeros((most, SCREEN_SIZE), np.intp)
    weights = np.zeros((most, SCREEN_SIZE), np.float32)
    for new in range(SCREEN_SIZE):
        begin, end = new * scale, min((new + 1) * scale, size)
        parts = [
            (old, part)
            for old in range(int(begin), int(np.ceil(end)))
            if (part := min(old + 1, end) - max(old, begin)) > _LEAST_PART
        ]
        for place, (old, part) in enumerate(parts):
            indices[place, new] = old
            weights[place, new] = part / min(scale, size - begin)
    return indices, weights


class _Preprocessed(gymnasium.Wrapper[np.ndarray, int, np.ndarray, int]):
    """Repeats actions, and shrinks the maximum of the last two frames: `[84, 84]` uint8."""

    def __init__(self, env: gymnasium.Env[np.ndarray, int], max_noops: int) -> None:
        super().__init__(env)
        self.observation_space = gymnasium.spaces.Box(0, 255, (SCREEN_SIZE,) * 2, np.uint8)
        self._ale = env.unwrapped.ale
        self._max_noops = max_noops
        # Of the third and the fourth frame of a step.
        self._screens: list[np.ndarray] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts a game with 1 to `max_noops` frames of no-op, if there are any."""
        _, info = self.env.reset(seed=seed, options=options)
        random = self.env.unwrapped.np_random
        for _ in range(random.integers(1, self._max_noops + 1) if self._max_noops else 0):
            _, _, terminated, truncated, info = self.env.step(0)
            if terminated or truncated:
                _, info = self.env.reset()
        screen = self._ale.getScreenGrayscale()
        self._screens = [screen, screen]
        return shrink(screen), info

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Plays 4 frames, or fewer where the game ends; its last frame is not drawn."""
        total = 0.0
        for frame in range(ACTION_REPEAT):
            _, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
            if frame >= ACTION_REPEAT - 2:
                self._screens[frame % 2] = self._ale.getScreenGrayscale()
        # As the emulator does: an end on the fourth frame shows the step before, too.
        self._screens[1] = np.maximum(*self._screens)
        return shrink(self._screens[1]), total, terminated, truncated, info


def make_render(
    game: str,
    protocol: str | AtariProtocol,
    seed: int,
    max_episode_frames: int = MAX_EPISODE_FRAMES,
) -> gymnasium.Env:
    """Makes the game.

    Observations equal those of `AtariEnvironment` bit for bit, given the same no-ops and actions
    and no sticky actions. It differs in what seeds mean (the two draw no-ops and sticky actions
    differently), in drawing 1 to `max_noops` no-ops, in counting them towards `max_episode_frames`,
    and in that a lost life shows only in `info["lives"]`.

    Args:
      game, protocol, max_episode_frames: as for `AtariEnvironment`.
      seed: the environment comes seeded: call `reset()` without one.

    Returns:
      A Gymnasium environment; observations [4, 84, 84] uint8, `render()` gives [210, 160, 3] uint8
      in most games.
    """
    if isinstance(protocol, str):
        protocol = get_protocol(protocol)
    check_max_episode_frames(max_episode_frames)
    register_games()
    raw = gymnasium.make(
        f"ALE/{game}-v5",
        render_mode="rgb_array",
        disable_env_checker=True,
        frameskip=1,  # the action is repeated here instead
        repeat_action_probability=protocol.repeat_action_probability,
        full_action_space=protocol.full_action_set,
        max_num_frames_per_episode=max_episode_frames,
    )
    preprocessed = _Preprocessed(raw, protocol.max_noops)
    env = FrameStackObservation(preprocessed, STACK_SIZE, padding_type="zero")
    env.reset(seed=seed)
    return env
