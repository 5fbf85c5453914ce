"""What the tasks that come with the program have in common: each is shown as a small board."""

import gymnasium
import numpy as np

_PIXELS_PER_CELL = 16


class BoardTask(gymnasium.Env[np.ndarray, np.int64]):
    """A task whose observation is a board of numbers in [0, 1], and whose picture is that board."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(self, shape: tuple[int, int], num_actions: int, render_mode: str | None) -> None:
        """Args:
        shape: of the board, `(R, C)`.
        num_actions: actions are the integers below it.
        render_mode: None, or "rgb_array".
        """
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, shape, np.float32)
        self.action_space = gymnasium.spaces.Discrete(num_actions)

    def render(self) -> np.ndarray | None:
        """Returns the board in grey, `[16 R, 16 C, 3]` uint8; None if made without a render
        mode."""
        if self.render_mode is None:
            return None
        cell = np.full((_PIXELS_PER_CELL, _PIXELS_PER_CELL), 255.0)
        pixels = np.kron(self._board(), cell).astype(np.uint8)
        return np.repeat(pixels[:, :, None], 3, axis=2)

    def _board(self) -> np.ndarray:
        """The observation, `[R, C]` float32."""
        raise NotImplementedError
