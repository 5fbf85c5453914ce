"""Switching: a task whose best discount changes in the middle of training.

Two phases, each with a best discount that is known. In the first a lottery follows the answer, and
a high discount drowns what the answer paid; in the second the reward is delayed, as in `Patience`,
and a low discount never learns to wait for it. No constant discount serves both.
"""

import dataclasses
from typing import Any

import gymnasium
import numpy as np

from meta_impala.environments import boards
from meta_impala.environments.built_in import (
    SWITCHING_EVALUATION_ID,
    SWITCHING_FIRST_ID,
    SWITCHING_ID,
    SWITCHING_SECOND_ID,
)

CONTEXTS = 4
_RIGHT, _LURE, _WRONG = 0, 1, 2
_PLAYS = ("switch", "first", "second", "both")


@dataclasses.dataclass(frozen=True)
class Phase:
    """The settings that differ between the phases.

    Attributes:
      delay: steps from the right answer to its reward.
      sigma: standard deviation of the lottery that follows the answer.
    """

    delay: int
    sigma: float


class Switching(gymnasium.Env[np.ndarray, np.int64]):
    """An episode of `length` steps, 8 by default. Four actions; only the first one matters.

    Step 0 shows one of four symbols, drawn uniformly. The action of the symbol's number is right
    and pays 1.0, `delay` steps later. The next action (modulo 4) is the lure: it pays `early` (0.3)
    at once. The other two pay nothing. Then a lottery draws a number from N(0, `sigma`²), shows it
    in the observation of step 1, and pays it at step 1, whatever the action.

    First phase: `first_delay` 0, `first_sigma` 10. The right answer is preferred at every γ. The
    return of an answer contains γ times the lottery, of variance γ² σ² (`return_variance`): the
    best discount is 0. The lottery is drawn after the answer, so no value function of the answer's
    state can predict it; it is shown before it is paid, so at step 1 a value function can, and the
    actions there have no noise in their advantage. A bootstrap (λ < 1) does not remove it from the
    answer's target either, because V of step 1 contains it.

    Second phase: `second_delay` 7, `second_sigma` 0. The right answer is worth γ^7 and the lure
    0.3, so it is preferred exactly if γ > 0.3^(1/7) = 0.842 (`least_patient_discount`); the rewards
    are deterministic, so any γ above it is right.

    The phase is a function of this environment's own count of steps over all its episodes: an
    episode that begins after `switch` steps or more is of the second phase. With N environments in
    a run (actors × environments per actor) the switch comes after `switch` × N frames. A new
    instance counts from 0: a run that is resumed, or an actor whose environments were replaced,
    begins with the first phase again.

    Rewards must not be clipped (`--reward_clip=0`), or hardly any of the lottery is left. Agents
    are scored in `meta_impala/SwitchingEvaluation-v0`: one round of either phase in every game,
    without the lottery, whose mean is 0. The best score is 2.0, that of random actions 0.65.

    Args:
      switch: steps of one environment before the second phase begins; a multiple of `length` lets
        it begin at exactly that step.
      play: "switch"; "first" or "second" for one phase alone; "both" for one round of either in
        every episode, which is then twice as long.
      length, early, first_delay, first_sigma, second_delay, second_sigma: as above.

    Observations: `[length + 1, 15]` float32. The row is the number of steps made in the round.
    Columns 0 to 3 and 4 to 7 are the symbols of the two phases (row 0, one-hot), 8 to 10 and 11 to
    13 the answer that was given in them (right, lure, other; one-hot in later rows), 14 is the
    lottery divided by σ (row 1).
    """

    # Gymnasium declares this as an instance attribute, so a type checker refuses ClassVar here.
    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        switch: int = 6_400,
        play: str = "switch",
        length: int = 8,
        early: float = 0.3,
        first_delay: int = 0,
        first_sigma: float = 10.0,
        second_delay: int = 7,
        second_sigma: float = 0.0,
        render_mode: str | None = None,
    ) -> None:
        if play not in _PLAYS:
            raise ValueError(f"play={play!r}: must be one of {' | '.join(_PLAYS)}")
        if length < 2 or not all(0 <= delay < length for delay in (first_delay, second_delay)):
            raise ValueError(
                f"length={length}, first_delay={first_delay}, second_delay={second_delay}: must be "
                "length >= 2 and delays from 0 to length - 1"
            )
        if switch < 0 or min(first_sigma, second_sigma) < 0.0 or not 0.0 <= early < 1.0:
            raise ValueError(
                f"switch={switch}, early={early}, first_sigma={first_sigma}, "
                f"second_sigma={second_sigma}: must be at least 0, and early below 1"
            )
        self.render_mode = render_mode
        self.phases = (Phase(first_delay, first_sigma), Phase(second_delay, second_sigma))
        columns = 2 * CONTEXTS + 2 * 3 + 1
        self.observation_space = gymnasium.spaces.Box(
            -np.inf, np.inf, (length + 1, columns), np.float32
        )
        self.action_space = gymnasium.spaces.Discrete(CONTEXTS)
        self._switch = switch
        self._play = play
        self._length = length
        self._early = early
        self._steps = 0
        self._phase = 0
        self._time = 0
        self._symbol = 0
        self._answer = _WRONG
        self._lottery = 0.0  # in units of σ

    def least_patient_discount(self, phase: int) -> float:
        """The γ above which the right answer of phase 0 or 1 is preferred to the lure."""
        delay = self.phases[phase].delay
        return self._early ** (1.0 / delay) if delay else 0.0

    def return_variance(self, phase: int, gamma: float) -> float:
        """Variance of the γ-discounted return from step 0 on, given the answer."""
        return gamma**2 * self.phases[phase].sigma ** 2

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if self._play == "switch":
            self._begin(int(self._steps >= self._switch))
        else:
            self._begin(int(self._play == "second"))
        return self._board(), {}

    def step(
        self, action: int | np.integer
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        delay, sigma = dataclasses.astuple(self.phases[self._phase])
        reward = 0.0
        if self._time == 0:
            answers = {self._symbol: _RIGHT, (self._symbol + 1) % CONTEXTS: _LURE}
            self._answer = answers.get(int(action), _WRONG)
            self._lottery = float(self.np_random.normal()) if sigma else 0.0
            if self._answer == _LURE:
                reward += self._early
        if self._time == 1:
            reward += sigma * self._lottery
        if self._time == delay and self._answer == _RIGHT:
            reward += 1.0
        self._time += 1
        self._steps += 1
        ends = self._time == self._length
        if ends and self._play == "both" and self._phase == 0:
            ends = False
            self._begin(1)
        return self._board(), reward, ends, False, {}

    def render(self) -> np.ndarray | None:
        """Returns the board as an RGB image, or None if made without a render mode."""
        return None if self.render_mode is None else boards.picture(self._board())

    def _begin(self, phase: int) -> None:
        self._phase = phase
        self._time = 0
        self._symbol = int(self.np_random.integers(CONTEXTS))

    def _board(self) -> np.ndarray:
        board = np.zeros(self.observation_space.shape, np.float32)
        if self._time == 0:
            board[0, CONTEXTS * self._phase + self._symbol] = 1.0
        else:
            board[self._time, 2 * CONTEXTS + 3 * self._phase + self._answer] = 1.0
            if self._time == 1:
                board[1, -1] = self._lottery
        return board


_ENTRY_POINT = "meta_impala.environments.switching:Switching"
gymnasium.register(id=SWITCHING_ID, entry_point=_ENTRY_POINT)
gymnasium.register(id=SWITCHING_FIRST_ID, entry_point=_ENTRY_POINT, kwargs={"play": "first"})
gymnasium.register(id=SWITCHING_SECOND_ID, entry_point=_ENTRY_POINT, kwargs={"play": "second"})
gymnasium.register(
    id=SWITCHING_EVALUATION_ID,
    entry_point=_ENTRY_POINT,
    # Without the lottery, whose mean is 0, a return is exactly what the answers paid.
    kwargs={"play": "both", "first_sigma": 0.0, "second_sigma": 0.0},
)
