"""Plays the games of an evaluation with one agent: continues, saves, and says what it found.

Imports TensorFlow; what was asked for is checked before (`meta_impala.evaluate`).
"""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import tqdm

from meta_impala.config import AgentSettings
from meta_impala.environments import Description
from meta_impala.environments.base import BatchedEnvironment
from meta_impala.errors import UserError, printable
from meta_impala.evaluation import record, video
from meta_impala.evaluation import starts as game_starts
from meta_impala.evaluation.games import GamePolicy, evaluated_environment, play_games
from meta_impala.evaluation.record import Game, PartialGames
from meta_impala.evaluation.starts import Start
from meta_impala.storage.trained_agent import TrainedAgent

# So long without the end of a game, and the frames so far are told: is it an endless one?
_SECONDS_OF_SILENCE = 60.0


class Evaluation(NamedTuple):
    """What is evaluated, and under which rules.

    Attributes:
      agent: plays, with the η of its snapshot.
      settings: of its run, network included.
      description: of its environment.
      seed: of games and actions.
      starts: where games begin, taken in turn; empty for no-op starts.
      starts_path: the file that they are from.
      max_episode_frames: after which a game is cut, its start included; None for the environment's
        own limit.
      eta_is_from: `checkpoint`, or what changed η.
      should_stop: asked before each step.
      say: shows a line.
      name: of the agent in what is said; its checkpoint if empty.
    """

    agent: TrainedAgent
    settings: AgentSettings
    description: Description
    seed: int = 1
    starts: Sequence[Start] = ()
    starts_path: pathlib.Path | None = None
    max_episode_frames: int | None = None
    eta_is_from: str = "checkpoint"
    should_stop: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = lambda text: None
    name: str = ""

    def definition(self) -> dict[str, Any]:
        """Everything that determines a game's result."""
        eta = self.agent.snapshot.eta
        # With an η per state the snapshot holds the weights of its logits instead.
        gamma, lambda_ = (None, None) if eta.per_state else map(float, eta.values.numpy()[:2])
        return record.where_games_are_played(
            self.settings.environment,
            self.settings.protocol,
            self.starts_path,
            self.settings.environment_arguments,
            max_episode_frames=self.max_episode_frames,
        ) | {
            "policy": "stochastic",
            "frames_trained": self.agent.frames,
            "updates": self.agent.snapshot.version,
            "checkpoint": self.agent.checkpoint,
            "agent_digest": self.agent.digest(),
            "gamma": gamma,
            "lambda": lambda_,
            "eta_is_from": self.eta_is_from,
            "seed": self.seed,
            "versions": record.versions(),
        }

    def run(
        self, episodes: int, num_envs: int, out: pathlib.Path | None, *, save: bool = True
    ) -> dict[str, Any]:
        """Plays full games, or those that an interrupted evaluation has left; saves the result.

        Args:
          episodes: how many.
          num_envs: games side by side.
          out: file of the result, JSON; None for none.
          save: whether that file is written. Games of an interruption are kept beside it anyway.

        Returns:
          What the file has.

        Raises:
          UserError: if a file cannot be written, or a start not be reached, or no game has a finite
            return.
          KeyboardInterrupt: if it should stop; the games played so far are kept beside `out`.
        """
        definition = self.definition()
        path = record.partial_path(out, definition) if out else None
        partial = PartialGames(path, definition)
        known = {game.number for game in partial.games if game.number < episodes}
        self.say(
            f"playing {episodes} game{'s' * (episodes > 1)} of {self.settings.environment} with "
            f"{self.name or self.agent.checkpoint}"
            + (f"; {len(known)} were played before the interruption" if known else "")
        )
        for other in record.other_partials(path):
            self.say(f"{printable(other)} keeps games of another checkpoint, seed or protocol")
        numbers = [number for number in range(episodes) if number not in known]
        try:
            if numbers:
                self._play_all(numbers, min(num_envs, len(numbers)), episodes, partial)
        except BaseException as error:
            partial.save()
            if isinstance(error, KeyboardInterrupt):
                self._say_what_is_kept(partial, episodes, path)
            raise
        played = [game for game in partial.games if game.number < episodes]
        try:
            result = record.result(definition, played, self._frames_before) | {"num_envs": num_envs}
        except UserError:  # all of them are worthless
            partial.remove()
            raise
        if out is not None and save:
            record.save_result(out, result)
        partial.remove()
        return result

    def _say_what_is_kept(
        self, partial: PartialGames, episodes: int, path: pathlib.Path | None
    ) -> None:
        """Says what an interruption leaves; nothing before the first game."""
        done = sum(game.number < episodes for game in partial.games)
        games = f"{done:,} of {episodes:,} games"
        if done and path is None:
            self.say(f"{games} were played, and are not kept: that needs --out=FILE")
        elif done:
            self.say(f"{games} are kept in {printable(path)}; the same command plays the others")

    def _play_all(
        self, numbers: Sequence[int], num_envs: int, episodes: int, partial: PartialGames
    ) -> None:
        """Plays the games of these numbers into `partial`."""
        with contextlib.ExitStack() as stack:
            environments = []
            for _ in range(num_envs):
                environment = evaluated_environment(self.settings)
                environments.append(stack.enter_context(contextlib.closing(environment)))
            # `disable=None`: shown on a terminal only.
            bar = stack.enter_context(
                tqdm.tqdm(
                    total=episodes,
                    initial=episodes - len(numbers),
                    unit="game",
                    disable=None,
                    leave=False,
                    dynamic_ncols=True,
                )
            )
            silence = _Silence(self)

            def on_game(game: Game) -> None:
                partial.add(game)
                bar.update()
                silence.end()

            games = ((number, self.start(number)) for number in numbers)
            self._play(environments, games, on_game, silence.on_step)

    def start(self, number: int) -> Start:
        """Where a game begins."""
        if self.starts:
            return self.starts[number % len(self.starts)]
        return Start(game_starts.game_seeds(self.seed, number)[0])

    def _frames_before(self, number: int) -> int:
        """Environment frames that are played to reach the start of a game."""
        if not self.starts:
            return 0
        return len(self.start(number).actions) * self.description.action_repeat

    def _play(
        self,
        environments: Sequence[BatchedEnvironment],
        games: Iterable[tuple[int, Start]],
        on_game: Callable[[Game], None] | None = None,
        on_step: Callable[[int], None] = lambda frames: None,
    ) -> list[Game]:
        return play_games(
            GamePolicy(self.agent.network, self.settings, self.description, len(environments)),
            self.agent.snapshot,
            environments,
            games,
            self.seed,
            core_state_size=self.agent.network.settings.core_state_size,
            max_frames=self.max_episode_frames,
            on_game=on_game,
            on_step=on_step,
            should_stop=self.should_stop,
        )

    def record_video(self, environment: video.RecordedEnvironment, path: pathlib.Path) -> Game:
        """Plays one more game and writes its pictures.

        Args:
          environment: that is recorded; closed at the end.
          path: of the video.
        """
        self.say("recording one more game")
        with (
            contextlib.closing(environment),
            video.VideoFile(path, environment.frames_per_second) as file,
        ):
            environment.on_picture = file.add
            (game,) = self._play([environment], [(0, Start(self.seed))])
        return game


class _Silence:
    """Tells how long the longest game is when none has ended for a while."""

    def __init__(self, evaluation: Evaluation) -> None:
        self._evaluation = evaluation
        self.end()

    def end(self) -> None:
        """A game has ended."""
        self._since = time.monotonic()

    def on_step(self, frames: int) -> None:
        """Args:
        frames: of the longest game that goes on.
        """
        if time.monotonic() - self._since < _SECONDS_OF_SILENCE:
            return
        self.end()
        limit = self._evaluation.max_episode_frames
        cut = f", it is cut after {limit:,} (--max_episode_frames)" if limit else ""
        self._evaluation.say(
            f"no game has ended for {_SECONDS_OF_SILENCE:.0f} s: the longest has {frames:,} "
            f"frames so far{cut}"
        )
