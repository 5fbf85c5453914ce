"""Catch: a tiny game with an image and a delayed reward, for tests and for a first run.

The rules are those of bsuite (Osband et al. 2019). A ball falls from a random column of the top row
of a 10×5 board, one row per step; the agent moves a paddle in the bottom row and is paid when the
ball arrives there.
"""

from typing import Any

import gymnasium
import numpy as np

from meta_impala.environments.boards import BoardTask
from meta_impala.environments.built_in import CATCH_ID

ROWS = 10
COLUMNS = 5


class Catch(BoardTask):
    """Observations: the board, [10, 5] float32, 1 at the ball and at the paddle. Actions: left,
    stay, right.

    The reward is 0 until the ball reaches the bottom row, after 9 steps; then +1 if the paddle is
    under it and −1 if not, and the episode ends. The best policy earns +1 in every episode.
    """

    metadata = BoardTask.metadata | {"render_fps": 10}

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__((ROWS, COLUMNS), 3, render_mode)
        self._ball_row = 0
        self._ball_column = 0
        self._paddle_column = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._ball_row = 0
        self._ball_column = int(self.np_random.integers(COLUMNS))
        self._paddle_column = COLUMNS // 2
        return self._board(), {}

    def step(
        self, action: int | np.integer
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        move = int(action) - 1
        self._paddle_column = min(max(self._paddle_column + move, 0), COLUMNS - 1)
        self._ball_row += 1
        landed = self._ball_row == ROWS - 1
        caught = self._paddle_column == self._ball_column
        reward = (1.0 if caught else -1.0) if landed else 0.0
        return self._board(), reward, landed, False, {}

    def get_action_meanings(self) -> list[str]:
        """Names of the actions, for people."""
        return ["left", "stay", "right"]

    def _board(self) -> np.ndarray:
        board = np.zeros((ROWS, COLUMNS), np.float32)
        board[self._ball_row, self._ball_column] = 1.0
        board[ROWS - 1, self._paddle_column] = 1.0
        return board


gymnasium.register(id=CATCH_ID, entry_point="meta_impala.environments.catch:Catch")
