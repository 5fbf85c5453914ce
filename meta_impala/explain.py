"""Explains where the meta-gradient of a run pushes γ and λ, and why.

    meta-impala explain runs/pong --batches=20

Plays real batches with the newest checkpoint, without changing its parameters, and splits the
meta-gradient of every update: by term, by path, by time step, and by meta batch. Training may be
running. The result is printed, and written to `explain.md`, `explain.json` and
`explain.png`.
"""

from __future__ import annotations

import contextlib
import pathlib
from typing import TYPE_CHECKING, Any

import tqdm
from absl import flags

from meta_impala import __version__, command
from meta_impala.config.number_flags import define_integer, define_seed
from meta_impala.environments import registry
from meta_impala.errors import UserError
from meta_impala.storage import results_folder
from meta_impala.storage.json_files import json_document
from meta_impala.storage.trained_run import TrainedRun, open_trained_run, refuse_no_meta_gradient
from meta_impala.storage.trust import define_trust_flag, trust_of_flags
from meta_impala.system.interrupt import raise_on_interrupt
from meta_impala.system.user_path import define_path, one_path

if TYPE_CHECKING:
    from meta_impala.learner.learner import Learner

FLAGS = flags.FLAGS

POSITIONAL = "[RUN]"


def define_flags() -> None:
    """The flags of this command."""
    define_trust_flag()
    define_path(
        "logdir",
        None,
        "Folder of the run, if it is not given as RUN; a running training is not disturbed.",
    )
    define_integer("batches", 20, "Batches to explain; a standard error needs two.", low=2)
    define_integer(
        "warmup",
        20,
        "Unrolls played before the first batch and discarded, since games start anew.",
        low=0,
    )
    define_seed("Seed of games and actions: the same seed and checkpoint give the same numbers.")
    define_path(
        "outdir", None, "Folder of the results. Default: the folder explain in that of the run."
    )
    flags.DEFINE_bool("figure", True, "Draw the figure (--nofigure: text and numbers only).")


def _outdir(run: TrainedRun) -> pathlib.Path:
    """The folder of the results, which has its place in that of the run."""
    own = run.folder.path / "explain"
    if FLAGS.outdir and pathlib.Path(FLAGS.outdir) != own:
        return results_folder.check_outdir(FLAGS.outdir)
    results_folder.refuse_links(own, run.folder.path)
    return results_folder.check_outdir(str(own), in_run=True)


def _last_learning_rate(run: TrainedRun, learner: Learner, frames: int) -> float:
    """The step size of the last update: at the end of a run the schedule itself is at 0."""
    config = run.config
    frames_per_update = config.batch_size * config.unroll_length * run.description.action_repeat
    learning_rate = learner.learning_rate(max(0, frames - frames_per_update))
    if not learning_rate:
        raise UserError(
            f"{run.folder.config_path}: the learning rate is 0 after {frames:,} frames "
            f"(total_frames is {config.total_frames:,}): an update changes nothing, and there is "
            "no meta-gradient"
        )
    return learning_rate


def _explain(run: TrainedRun, outdir: pathlib.Path) -> None:
    from meta_impala.analysis.explanation import attribution_report as meta_gradient_report
    from meta_impala.analysis.explanation import attribution_text
    from meta_impala.analysis.explanation import samples as meta_gradient_samples
    from meta_impala.storage.trained_agent import load_learner

    config, description = run.config, run.description
    learner, checkpoint = load_learner(run.folder.checkpoints, config, description)
    config = run.folder.as_trained(config)
    frames = int(learner.state.frames.numpy())
    learning_rate = _last_learning_rate(run, learner, frames)
    environment = registry.resolve(config.environment).id
    command.say(f"playing {FLAGS.batches} batches of {environment} with {checkpoint}")
    samples = meta_gradient_samples.samples(
        learner,
        config,
        description,
        learning_rate,
        batches=FLAGS.batches,
        warmup=FLAGS.warmup,
        seed=FLAGS.seed,
    )
    # `disable=None`: shown on a terminal only.
    with (
        contextlib.closing(samples),
        tqdm.tqdm(
            samples, total=FLAGS.batches, unit="batch", disable=None, leave=False
        ) as followed,
    ):
        collected = list(followed)
    result = meta_gradient_report.report(config, collected)
    text = attribution_text.text(
        config,
        f"{environment}, {frames:,} frames trained ({checkpoint}); {FLAGS.batches} batches of "
        f"{config.batch_size} games × {config.unroll_length} steps, warm-up {FLAGS.warmup}, seed "
        f"{FLAGS.seed}.",
        learning_rate,
        result,
    )
    numbers = {
        "environment": environment,
        "protocol": config.protocol,
        "frames_trained": frames,
        "checkpoint": checkpoint,
        "batches": FLAGS.batches,
        "warmup": FLAGS.warmup,
        "seed": FLAGS.seed,
        "learning_rate": learning_rate,
        "meta_batch_of_training": meta_gradient_samples.meta_batch_of_training(config),
        "share_of_same_games": meta_gradient_samples.share_of_same_games(config),
        **meta_gradient_report.to_json(result),
        "meta_impala_version": __version__,
    }
    results_folder.make_outdir(str(outdir), in_run=True)  # it is checked
    if FLAGS.figure:
        _draw(outdir / "explain.png", f"{environment}, {frames:,} frames", result)
    _write(outdir, text, numbers)


def _draw(path: pathlib.Path, title: str, result: Any) -> None:
    from meta_impala.analysis.explanation import attribution_figure as meta_gradient_figure

    meta_gradient_figure.draw(path, title, result)


def _write(outdir: pathlib.Path, text: str, numbers: dict[str, Any]) -> None:
    """Writes the files, then prints the text."""
    results_folder.write_text(outdir / "explain.md", text)
    results_folder.write_text(outdir / "explain.json", json_document(numbers))
    command.say(f"\n{text}\nwritten to {outdir}")


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    run = open_trained_run(one_path(arguments, "logdir", FLAGS.logdir), trust_of_flags())
    refuse_no_meta_gradient(run)
    outdir = _outdir(run)
    command.load_tensorflow()
    from meta_impala.system.tensorflow_setup import configure_for_inference

    configure_for_inference()
    raise_on_interrupt()
    _explain(run, outdir)
    return 0


if __name__ == "__main__":
    define_flags()
    command.run(main, POSITIONAL)
