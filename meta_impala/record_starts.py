"""Records starts for `evaluate --starts=human`: points within a person's or an agent's games.

    meta-impala record --out=pong_starts.json --environment=Pong
    meta-impala record --out=pong_starts.json --logdir=runs/pong --games=20

The first opens a window (needs pygame: pip install 'meta_impala[play]'); the keys are w, a, s, d
and space, and closing the window (or Ctrl-C) ends the recording. The second lets the newest
checkpoint play.
"""

from __future__ import annotations

import contextlib
import pathlib

from absl import flags

from meta_impala import command
from meta_impala.config import AgentSettings, Config, RunSettings
from meta_impala.config.number_flags import define_float, define_integer, define_seed
from meta_impala.config.text import counted
from meta_impala.environments import (
    PROTOCOLS,
    EnvironmentSpec,
    UnknownEnvironmentError,
    UnsupportedEnvironmentError,
    registry,
)
from meta_impala.environments.base import BatchedEnvironment
from meta_impala.errors import UserError
from meta_impala.evaluation import live_window, start_recorder
from meta_impala.evaluation import record as evaluation_record
from meta_impala.evaluation import starts as game_starts
from meta_impala.evaluation.starts import Start
from meta_impala.storage.results_folder import check_file
from meta_impala.storage.trained_run import open_trained_run
from meta_impala.storage.trust import define_trust_flag, trust_of_flags
from meta_impala.system.interrupt import raise_on_interrupt
from meta_impala.system.user_path import define_path, user_path

FLAGS = flags.FLAGS


def define_flags() -> None:
    """The flags of this command."""
    define_trust_flag()
    define_path("out", None, "File to write. Default: starts.json.")
    flags.DEFINE_string("environment", "Pong", "Environment that a person plays.")
    flags.DEFINE_enum("protocol", "impala", list(PROTOCOLS), "Atari protocol.")
    define_path("logdir", None, "Folder of a run whose newest checkpoint plays.")
    define_integer("games", 20, "Games that the checkpoint plays.")
    define_integer("starts", 100, "Starts to draw from the games.")
    define_integer("max_steps", 4500, "Latest agent step of a start (4500: 5 minutes of Atari).")
    define_seed("Seed of games and draws.")
    define_float(
        "frames_per_second", 15.0, "Agent steps a second for a person.", low_open=True, high=1000
    )


def _make(environment: str, protocol: str) -> BatchedEnvironment:
    noops, _ = evaluation_record.noops(protocol)
    return registry.make(environment, 1, protocol, min_noops=noops)


def _by_person(environment: str, protocol: str) -> list[start_recorder.Recording]:
    raise_on_interrupt()  # which ends the recording
    with contextlib.closing(_make(environment, protocol)) as made:
        keys = start_recorder.keys_to_actions(environment, protocol, made.num_actions)
        return start_recorder.record_person(
            made,
            keys,
            FLAGS.seed,
            FLAGS.frames_per_second,
            on_start=lambda: command.say(
                f"keys: {', '.join('+'.join(k).replace(' ', 'space') for k in keys)}; close the "
                "window to end"
            ),
        )


def _refuse_other_environment(config: Config) -> None:
    """`--environment` beside `--logdir` can only name the run's own, whose module it trusts; so can
    `--protocol`."""
    if FLAGS["protocol"].present and FLAGS.protocol != config.protocol:
        raise UserError(
            f"--protocol={FLAGS.protocol}: must be that of the run in --logdir, {config.protocol}, "
            "or not be given"
        )
    if not FLAGS["environment"].present:
        return
    try:
        given = registry.resolve(FLAGS.environment)
    except UnknownEnvironmentError as error:
        raise UserError(f"--environment={FLAGS.environment}: {error}") from None
    if given != registry.resolve(config.environment):
        raise UserError(
            f"--environment={FLAGS.environment}: must be that of the run in --logdir, "
            f"{config.environment}, or not be given"
        )


def _by_agent(logdir: str) -> tuple[Config, list[start_recorder.Recording], str]:
    folder, config, description = open_trained_run(logdir, trust_of_flags())
    _refuse_other_environment(config)
    command.load_tensorflow()
    from meta_impala.evaluation.games import GamePolicy, evaluated_environment, play_games
    from meta_impala.storage.trained_agent import load_agent
    from meta_impala.system.tensorflow_setup import configure_for_inference

    configure_for_inference()
    agent = load_agent(folder.checkpoints, config, description)
    count = min(8, FLAGS.games)
    tables = [
        start_recorder.RecordedGames(evaluated_environment(config.part(RunSettings)))
        for _ in range(count)
    ]
    starts = [
        (number, Start(game_starts.game_seeds(FLAGS.seed, number)[0]))
        for number in range(FLAGS.games)
    ]
    play_games(
        GamePolicy(agent.network, config.part(AgentSettings), description, count),
        agent.snapshot,
        tables,
        starts,
        FLAGS.seed,
        core_state_size=agent.network.settings.core_state_size,
        max_frames=evaluation_record.frame_limit(config.environment, config.environment_arguments),
        on_game=lambda game: command.say(
            f"game {game.number + 1} of {FLAGS.games}: return {game.episode_return:g}"
        ),
    )
    recordings = [recording for table in tables for recording in table.recordings]
    for table in tables:
        table.close()
    recordings.sort(key=lambda recording: recording.seed)
    return config, recordings, f"games of {agent.checkpoint} of a run"


def _check_out() -> pathlib.Path:
    """The file to write."""
    return check_file(pathlib.Path(FLAGS.out or user_path("starts.json")), "out")


def _recordings() -> tuple[EnvironmentSpec, str, list[start_recorder.Recording], str]:
    """Environment, protocol, the recorded games, and who played them."""
    if FLAGS.logdir:
        config, recordings, source = _by_agent(FLAGS.logdir)
        return registry.resolve(config.environment), config.protocol, recordings, source
    try:
        spec = registry.resolve(FLAGS.environment)
        recordings = _by_person(spec.id, FLAGS.protocol)
    except (UnknownEnvironmentError, UnsupportedEnvironmentError) as error:
        raise UserError(f"--environment={FLAGS.environment}: {error}") from None
    return spec, FLAGS.protocol, recordings, "a person's games"


def main() -> int:
    """Runs the command; returns its exit code."""
    if FLAGS.logdir:
        command.refuse_given(["frames_per_second"], "with --logdir: its agent plays")
    else:
        command.refuse_given(["games"], "without --logdir: a person plays until they end it")
    out = _check_out()
    if not FLAGS.logdir:
        live_window.check("a person needs to see the game; --logdir=RUN lets a checkpoint play")
    spec, protocol, recordings, source = _recordings()
    starts = start_recorder.draw_starts(recordings, FLAGS.starts, FLAGS.seed, FLAGS.max_steps)
    made_with = {"rom": evaluation_record.rom(spec), "versions": evaluation_record.versions()}
    try:
        game_starts.write_starts(
            out,
            environment=spec.id,
            protocol=protocol,
            recorded_from=source,
            made_with=made_with,
            starts=starts,
        )
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written ({error.strerror})") from None
    games = sum(bool(recording.actions) for recording in recordings)
    command.say(f"{counted(len(starts), 'start')} from {counted(games, 'game')} written to {out}")
    return 0


if __name__ == "__main__":
    define_flags()
    command.run(main)
