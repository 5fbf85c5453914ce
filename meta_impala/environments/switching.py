"""Switching: a task whose best discount changes in the middle of training.

Two phases, each with a best discount that is known. In the first, a coin decides the reward
of every step after the answer; at a high discount this noise dominates the return and hides the
reward of the answer itself. In the second the choice is between a loan and a delayed reward, and a
low discount takes the loan. No constant discount serves both.
"""

from typing import Any

import gymnasium
import numpy as np

from meta_impala.environments.boards import BoardTask
from meta_impala.environments.built_in import (
    EVALUATION_ARGUMENTS,
    SWITCHING_EVALUATION_ID,
    SWITCHING_FIRST_ID,
    SWITCHING_ID,
    SWITCHING_SECOND_ID,
)

CONTEXTS = 4
_RIGHT, _LOAN, _OTHER = 0, 1, 2
_PLAYS = ("switch", "first", "second", "both")
# The first of the columns that show the answer (second phase) and the coin (first phase).
_ANSWER, _COIN = 2 * CONTEXTS, 2 * CONTEXTS + 3


class Switching(BoardTask):
    """An episode of `length` steps, 10 by default. Four actions; only the first one matters.

    Step 0 shows one of four symbols, drawn uniformly; the action of the symbol's number is right.

    First phase, best discount 0: the right answer pays 1.0 at once, the others nothing. Then a fair
    coin is tossed. It is shown from step 1 on, and by it each of the steps 1 … length − 1 pays
    +`sigma` or −`sigma` (2.0), whatever is done. The return of an answer is its own reward ± σ S,
    S(γ) = Σ γ^t over these steps. So the right answer is better by 1 at every γ, but the variance
    is V = σ² S² (`return_variance`): 0 at γ 0, 4 at .5, 122 at .9, 293 at .99. To tell right from
    wrong by two standard errors takes 256 V / 3 uniformly random answers (`answers_needed`; N/16
    right and 3N/16 wrong ones per symbol): 340 at γ .5, 10,375 at .9, 25,021 at .99. The phase has
    10,240 (16 environments). A value function cannot help: of the answer's state it does not know
    the coin, and a bootstrap (λ < 1) contains it, because V of step 1 knows it. At γ 0 the steps
    after the answer have a value of ± σ alone, which is soon learned and small.

    Second phase, best discount above 0.926: the right answer pays 1.0 at the last step. The next
    action (modulo 4) is the loan: it pays `loan` (1.0) at once and takes it back at the last step.
    The other two pay nothing. The answers are worth γ^9, 1 − γ^9 and 0, so the right one is
    preferred exactly if γ > 0.5^(1/9) = 0.926 (`least_patient_discount`), and is then the only one
    with an undiscounted return, 1.0. The rewards are deterministic, so any γ above it is right;
    but in the first phase it needs more answers than there are (13,330 at 0.926).

    The phase is a function of this environment's own count of steps over all its episodes: an
    episode that begins after `switch` steps or more is of the second phase. With N environments in
    a run (actors × environments per actor) the switch comes after `switch` × N frames. A new
    instance counts from 0: a run that is resumed, or an actor whose environments were replaced,
    begins with the first phase again.

    Rewards must not be clipped (`--reward_clip=0`). Agents are scored in
    `meta_impala/SwitchingEvaluation-v0`: one round of either phase in every game, and the coin pays
    nothing (its mean is 0). The score is the number of right answers: 2.0 at best, 0.5 by random
    actions, 1.0 if one phase is solved and the other one's answers are all wrong.

    Args:
      switch: steps of one environment before the second phase begins; a multiple of `length` lets
        it begin at exactly that step.
      play: "switch"; "first" or "second" for one phase alone; "both" for one round of either in
        every episode, which is then twice as long.
      length, sigma, loan: as above.

    Observations: `[length + 1, 13]` float32, one-hot. The row is the number of steps made in the
    round. Row 0: columns 0 to 3 and 4 to 7 are the symbols of the two phases. Later rows: columns
    8 to 10 the answer of the second phase (right, loan, other), 11 and 12 the coin of the first.
    """

    def __init__(
        self,
        switch: int = 6_400,
        play: str = "switch",
        length: int = 10,
        sigma: float = 2.0,
        loan: float = 1.0,
        render_mode: str | None = None,
    ) -> None:
        if play not in _PLAYS:
            raise ValueError(f"play={play!r}: must be one of {' | '.join(_PLAYS)}")
        if length < 2 or switch < 0 or min(sigma, loan) < 0.0:
            raise ValueError(
                f"switch={switch}, length={length}, sigma={sigma}, loan={loan}: must be at least "
                "0, and length at least 2"
            )
        super().__init__((length + 1, _COIN + 2), CONTEXTS, render_mode)
        self._switch = switch
        self._play = play
        self._length = length
        self._sigma = sigma
        self._loan = loan
        self._steps = 0
        self._phase = 0
        self._time = 0
        self._symbol = 0
        self._answer = _OTHER
        self._tail = 0

    @property
    def least_patient_discount(self) -> float:
        """The γ above which the right answer of the second phase is preferred to the loan."""
        return (self._loan / (1.0 + self._loan)) ** (1.0 / (self._length - 1))

    def return_variance(self, gamma: float) -> float:
        """Variance of the γ-discounted return of an answer of the first phase."""
        later = sum(gamma**time for time in range(1, self._length))
        return (self._sigma * later) ** 2

    def answers_needed(self, gamma: float) -> float:
        """Random answers of the first phase after which the mean returns of right and wrong ones to
        one symbol, 1.0 apart, differ by two standard errors."""
        right, wrong = 1 / CONTEXTS**2, (CONTEXTS - 1) / CONTEXTS**2
        return 2.0**2 * self.return_variance(gamma) * (1 / right + 1 / wrong)

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
        if self._time == 0:
            answers = {self._symbol: _RIGHT, (self._symbol + 1) % CONTEXTS: _LOAN}
            self._answer = answers.get(int(action), _OTHER)
            self._tail = int(self.np_random.integers(2)) if self._phase == 0 else 0
        reward = self._second_reward() if self._phase else self._first_reward()
        self._time += 1
        self._steps += 1
        ends = self._time == self._length
        if ends and self._play == "both" and self._phase == 0:
            ends = False
            self._begin(1)
        return self._board(), reward, ends, False, {}

    def _first_reward(self) -> float:
        if self._time == 0:
            return float(self._answer == _RIGHT)
        return -self._sigma if self._tail else self._sigma

    def _second_reward(self) -> float:
        if self._time == 0:
            return self._loan if self._answer == _LOAN else 0.0
        if self._time < self._length - 1:
            return 0.0
        return {_RIGHT: 1.0, _LOAN: -self._loan, _OTHER: 0.0}[self._answer]

    def _begin(self, phase: int) -> None:
        self._phase = phase
        self._time = 0
        self._symbol = int(self.np_random.integers(CONTEXTS))

    def _board(self) -> np.ndarray:
        board = np.zeros(self.observation_space.shape, np.float32)
        if self._time == 0:
            board[0, CONTEXTS * self._phase + self._symbol] = 1.0
        elif self._phase == 0:
            board[self._time, _COIN + self._tail] = 1.0
        else:
            board[self._time, _ANSWER + self._answer] = 1.0
        return board


_ENTRY_POINT = "meta_impala.environments.switching:Switching"
gymnasium.register(id=SWITCHING_ID, entry_point=_ENTRY_POINT)
gymnasium.register(id=SWITCHING_FIRST_ID, entry_point=_ENTRY_POINT, kwargs={"play": "first"})
gymnasium.register(id=SWITCHING_SECOND_ID, entry_point=_ENTRY_POINT, kwargs={"play": "second"})
gymnasium.register(
    id=SWITCHING_EVALUATION_ID,
    entry_point=_ENTRY_POINT,
    kwargs=EVALUATION_ARGUMENTS[SWITCHING_EVALUATION_ID],
)
