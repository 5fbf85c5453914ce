"""Evaluates the newest checkpoint of a run: full games, raw returns, stochastic policy.

    python -m meta_impala.evaluate --logdir=runs/pong --episodes=100

Training may go on meanwhile. The result is printed, and written to `evaluation.json` of the folder.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import tqdm
from absl import flags

from meta_impala import __version__, command
from meta_impala import config as config_lib
from meta_impala.analysis import scores
from meta_impala.config import Config
from meta_impala.environments import (
    Description,
    UnknownEnvironmentError,
    UnsupportedEnvironmentError,
    registry,
)
from meta_impala.environments.base import BatchedEnvironment
from meta_impala.errors import UserError
from meta_impala.runtime import video
from meta_impala.runtime.run_folder import RunFolder, write_atomically

if TYPE_CHECKING:
    from meta_impala.runtime.evaluation import Game, TrainedAgent

FLAGS = flags.FLAGS

_DEFAULT_NUM_ENVS = 16
_MAX_SEED = 2**31 - 1
# The lines of the printed table; evaluation.json has them too, and more.
_PRINTED = (
    "environment",
    "protocol",
    "frames_trained",
    "gamma",
    "lambda",
    "episodes",
    "mean",
    "standard_error",
    "median",
    "min",
    "max",
    "human_normalised",
    "mean_episode_frames",
)
_FOUR_DECIMALS = ("gamma", "lambda", "human_normalised")


class _PathOrBool(flags.ArgumentParser):
    """`--record_video`, `--norecord_video`, or `--record_video=PATH`."""

    syntactic_help = "true, false, or a path that ends in .mp4"

    def parse(self, argument: Any) -> str:
        text = str(argument)
        return {"true": "true", "false": ""}.get(text.lower(), text)

    def flag_type(self) -> str:
        return "bool or path"


def define_flags() -> None:
    """The flags of this command."""
    flags.DEFINE_string("logdir", None, "Folder of the run; a running training is not disturbed.")
    flags.DEFINE_integer("episodes", 100, "Full games to play. Allowed: at least 1.")
    flags.DEFINE_integer(
        "num_envs",
        None,
        "Environments that play side by side; each plays the same number of games, within one. "
        f"Default: the smaller of --episodes and {_DEFAULT_NUM_ENVS}. Allowed: 1 to --episodes.",
    )
    flags.DEFINE_integer(
        "seed",
        1,
        "Seed of environments and actions: the same seed, --num_envs and checkpoint give the same "
        "games.",
    )
    flags.DEFINE_string(
        "evaluation_eta",
        None,
        "GAMMA,LAMBDA that the network is fed in place of the η of the checkpoint. "
        "Allowed: two numbers in [0, 1].",
    )
    flags.DEFINE_flag(
        flags.Flag(
            _PathOrBool(),
            flags.ArgumentSerializer(),
            "record_video",
            "",
            "Record one more game: to video.mp4 in the folder of the run, or to the path given. "
            "Needs pip install 'meta_impala[video]'.",
            boolean=True,
        )
    )


def parse_eta(text: str) -> tuple[float, float]:
    """γ and λ from "GAMMA,LAMBDA".

    Raises:
      UserError: unless they are two numbers in [0, 1].
    """
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 2 or not all(math.isfinite(v) and 0.0 <= v <= 1.0 for v in values):
        raise UserError(
            f"--evaluation_eta={text}: must be GAMMA,LAMBDA, two numbers in [0, 1], for example "
            "0.995,1"
        )
    return values[0], values[1]


def _num_envs() -> int:
    """How many environments play; checks the flags that are numbers."""
    if FLAGS.episodes < 1:
        raise UserError(f"--episodes={FLAGS.episodes}: must be at least 1")
    num_envs = FLAGS.num_envs
    if num_envs is None:
        num_envs = min(FLAGS.episodes, _DEFAULT_NUM_ENVS)
    if not 1 <= num_envs <= FLAGS.episodes:
        raise UserError(f"--num_envs={num_envs}: must be from 1 to {FLAGS.episodes} (--episodes)")
    # Environment i is seeded with seed + i.
    if not 0 <= FLAGS.seed <= _MAX_SEED - num_envs:
        raise UserError(f"--seed={FLAGS.seed}: must be from 0 to {_MAX_SEED - num_envs}")
    return num_envs


def _eta(config: Config) -> tuple[float, float] | None:
    """The η to feed in place of the checkpoint's."""
    if FLAGS.evaluation_eta is None:
        return None
    eta = parse_eta(FLAGS.evaluation_eta)
    if not config.eta_embedding_size:
        raise UserError(
            f"--evaluation_eta={FLAGS.evaluation_eta}: would change nothing: the network of this "
            "run is not fed η (its eta_embedding_size is 0)"
        )
    return eta


def _video_path(folder: RunFolder) -> pathlib.Path | None:
    if not FLAGS.record_video:
        return None
    if FLAGS.record_video == "true":
        return folder.path / "video.mp4"
    return pathlib.Path(FLAGS.record_video).expanduser()


def _open_folder() -> tuple[RunFolder, Config]:
    """The run's folder, which must hold a checkpoint and be writable, and its config."""
    if not FLAGS.logdir:
        raise UserError("--logdir: must be given, the folder of a run")
    folder = RunFolder(FLAGS.logdir)
    config = folder.load_config()
    if not folder.has_checkpoint():
        raise UserError(
            f"{folder.checkpoints}: no checkpoint yet; train first, or wait until the first one is "
            "saved"
        )
    folder.prepare()
    return folder, config


class Inputs(NamedTuple):
    """Everything that was asked for, checked as far as it can be without TensorFlow."""

    folder: RunFolder
    config: Config
    description: Description
    num_envs: int
    eta: tuple[float, float] | None
    video_path: pathlib.Path | None
    recorded: video.RecordedEnvironment | None


def _inputs() -> Inputs:
    num_envs = _num_envs()
    if FLAGS.evaluation_eta is not None:
        parse_eta(FLAGS.evaluation_eta)
    folder, config = _open_folder()
    eta = _eta(config)
    video_path, recorded = _video_path(folder), None
    try:
        description = registry.describe(config.environment, config.protocol)
        if video_path is not None:
            video.check_path(video_path)
            video.check_packages(config.environment)
            recorded = video.RecordedEnvironment(config.environment, config.protocol, FLAGS.seed)
    except (UnknownEnvironmentError, UnsupportedEnvironmentError) as error:
        raise UserError(f"{folder.config_path}: {error}") from None
    config = config_lib.resolve_network(config, description.observation_shape)
    return Inputs(folder, config, description, num_envs, eta, video_path, recorded)


def _result(inputs: Inputs, agent: TrainedAgent, games: list[Game]) -> dict[str, Any]:
    """What is printed and written: the scores, and all that defines them."""
    config = inputs.config
    spec = registry.resolve(config.environment)
    returns = [game.episode_return for game in games]
    summary = scores.summarize(returns)
    gamma, lambda_ = (float(value) for value in agent.snapshot.eta.numpy())
    return {
        "environment": spec.id,
        "protocol": config.protocol,
        "frames_trained": agent.frames,
        "checkpoint": agent.checkpoint,
        "gamma": gamma,
        "lambda": lambda_,
        "eta_is_from": "checkpoint" if inputs.eta is None else "--evaluation_eta",
        "seed": FLAGS.seed,
        "num_envs": inputs.num_envs,
        **summary._asdict(),
        "human_normalised": scores.human_normalised(spec.game, summary.mean),
        "mean_episode_frames": sum(game.frames for game in games) / len(games),
        "meta_impala_version": __version__,
        "returns": returns,
    }


def _print(result: dict[str, Any]) -> None:
    width = max(map(len, _PRINTED)) + 1
    for name in _PRINTED:
        value = result[name]
        if value is None:
            text = "none"
        elif isinstance(value, float):
            text = f"{value:,.{4 if name in _FOUR_DECIMALS else 2}f}"
        else:
            text = f"{value:,}" if isinstance(value, int) else str(value)
        print(f"{name + ':':<{width}} {text}")


def _write(folder: RunFolder, result: dict[str, Any]) -> None:
    try:
        write_atomically(folder.evaluation_path, json.dumps(result, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{folder.evaluation_path}: cannot be written ({error.strerror})") from None
    print(f"written to {folder.evaluation_path}")


def _play(
    inputs: Inputs,
    agent: TrainedAgent,
    environment: BatchedEnvironment,
    episodes: int,
    on_game: Callable[[Game], None] | None = None,
) -> list[Game]:
    from meta_impala.agent import Policy
    from meta_impala.runtime import evaluation

    return evaluation.play_games(
        Policy(agent.network, inputs.config, inputs.description, environment.num_envs),
        agent.snapshot,
        environment,
        episodes,
        FLAGS.seed,
        core_state_size=agent.network.settings.core_state_size,
        on_game=on_game,
    )


def _evaluate(inputs: Inputs, agent: TrainedAgent) -> None:
    environment = registry.make(
        inputs.config.environment,
        inputs.num_envs,
        inputs.config.protocol,
        num_threads=min(inputs.num_envs, os.cpu_count() or 1),
    )
    print(
        f"playing {FLAGS.episodes} game{'s' * (FLAGS.episodes > 1)} of "
        f"{inputs.config.environment} with {agent.checkpoint}",
        flush=True,
    )
    # `disable=None`: shown on a terminal only.
    with (
        contextlib.closing(environment),
        tqdm.tqdm(total=FLAGS.episodes, unit="game", disable=None, leave=False) as bar,
    ):
        games = _play(inputs, agent, environment, FLAGS.episodes, lambda _: bar.update())
    result = _result(inputs, agent, games)
    _print(result)
    _write(inputs.folder, result)


def _record(
    inputs: Inputs,
    agent: TrainedAgent,
    environment: video.RecordedEnvironment,
    path: pathlib.Path,
) -> None:
    print("recording one more game", flush=True)
    with (
        contextlib.closing(environment),
        video.VideoFile(path, environment.frames_per_second) as file,
    ):
        environment.on_picture = file.add
        (game,) = _play(inputs, agent, environment, 1)
    print(f"recorded a return of {game.episode_return:,g} in {game.frames:,} frames: {path}")


def main() -> int:
    """Runs the command; returns its exit code."""
    # An interrupt while libraries are imported could come out as any exception, or be swallowed:
    # nothing is open yet, so just leave.
    signal.signal(signal.SIGINT, lambda *_: os._exit(command.EXIT_CODE_INTERRUPTED))
    inputs = _inputs()
    command.import_tensorflow()
    from meta_impala.runtime import evaluation

    evaluation.configure_tensorflow()
    agent = evaluation.load_agent(inputs.folder.checkpoints, inputs.config, inputs.description)
    if inputs.eta is not None:
        agent = agent._replace(snapshot=evaluation.with_eta(agent.snapshot, *inputs.eta))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _evaluate(inputs, agent)
    if inputs.recorded is not None and inputs.video_path is not None:
        _record(inputs, agent, inputs.recorded, inputs.video_path)
    return 0


if __name__ == "__main__":
    define_flags()
    command.run(main)
