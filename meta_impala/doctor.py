"""Says in a few plain sentences why a run does not learn, and which flags to change.

    meta-impala doctor runs/pong

Looks at the metrics, and at a few games played with the newest checkpoint (--nobatch leaves those
out and needs no TensorFlow). Nothing in the folder is changed; training may go on meanwhile.
"""

from __future__ import annotations

import contextlib

from absl import flags

from meta_impala import command
from meta_impala.analysis.run_page.run_record import read_run_metrics
from meta_impala.config import Config
from meta_impala.config.number_flags import define_integer, define_seed
from meta_impala.diagnosis import verdict as verdict_lib
from meta_impala.diagnosis.evidence import Evidence
from meta_impala.environments import registry
from meta_impala.errors import UserError, warn
from meta_impala.storage.json_files import json_document
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.run_status import read_status
from meta_impala.storage.trained_run import TrainedRun, open_trained_run
from meta_impala.storage.trust import Trust, define_trust_flag, trust_of_flags
from meta_impala.system.streams import stdout_to_stderr
from meta_impala.system.user_path import define_path, one_path

FLAGS = flags.FLAGS

POSITIONAL = "[RUN]"


def define_flags() -> None:
    """The flags of this command."""
    define_trust_flag()
    define_path("logdir", None, "Folder of the run, if it is not given as RUN.")
    flags.DEFINE_bool(
        "batch", True, "Play games with the newest checkpoint; --nobatch: only look at the metrics."
    )
    define_integer("steps", 256, "Agent steps that each of at most 32 environments plays.")
    define_seed("Seed of games and actions.")
    flags.DEFINE_bool("json", False, "Print everything that was found as one JSON object.")


def _logdir(arguments: list[str]) -> str:
    """The folder of the run."""
    logdir = one_path(arguments, "logdir", FLAGS.logdir)
    if logdir is None:
        raise UserError("give the folder of one run")
    return logdir


def _time_limit(config: Config) -> int | None:
    """Of a game in frames; None if there is none, or the environment is not here."""
    try:
        return registry.time_limit(config.environment, config.environment_arguments)
    except UserError:
        return None


def _evidence(folder: RunFolder, config: Config) -> Evidence:
    status = read_status(folder)
    metrics, notes = read_run_metrics(folder, status)
    for line in notes:
        warn(f"warning: {line}")
    return Evidence(folder.as_trained(config), status, metrics, _time_limit(config))


def _open(folder: RunFolder, trust: Trust) -> TrainedRun | None:
    """The run with its checkpoint, or None if no games are to be played, or there is none yet."""
    if not FLAGS.batch:
        return None
    if not folder.has_checkpoint():
        saved = folder.read_status().get("checkpoint")
        why = f"{saved} is gone" if saved else "no checkpoint yet"
        warn(f"{why}: only the metrics are checked")
        return None
    return open_trained_run(str(folder.path), trust)


def _with_games(evidence: Evidence, run: TrainedRun) -> Evidence:
    command.load_tensorflow(quietly=FLAGS.json)
    from meta_impala.system.tensorflow_setup import configure_for_inference

    configure_for_inference()
    from meta_impala.diagnosis import batch_evidence
    from meta_impala.storage.trained_agent import load_learner

    learner, checkpoint = load_learner(run.folder.checkpoints, run.config, run.description)
    if not FLAGS.json:
        command.say(f"playing {registry.resolve(run.config.environment).id} with {checkpoint}")
    batch = batch_evidence.play(
        learner, run.config, run.description, checkpoint, steps=FLAGS.steps, seed=FLAGS.seed
    )
    return evidence._replace(batch=batch)


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    if not FLAGS.batch:
        command.refuse_given(["steps", "seed"], "with --nobatch: no games are played")
    folder = RunFolder(_logdir(arguments))
    trust = trust_of_flags()
    # The environment may print anything, and so may its emulator.
    with stdout_to_stderr() if FLAGS.json else contextlib.nullcontext():
        config = folder.load_config(trust)
        evidence = _evidence(folder, config)
        run = _open(folder, trust)
        if run is not None:
            evidence = _with_games(evidence, run)
    verdict = verdict_lib.diagnose(evidence)
    if FLAGS.json:
        text = json_document(verdict_lib.to_json(verdict), ensure_ascii=False)
        command.say(text.rstrip("\n"))
        return 0
    lines = verdict_lib.sentences(verdict)
    for number, line in enumerate(lines, start=1):
        command.say(f"{number}. {line}" if len(lines) > 1 else line)
    if note := verdict_lib.note_on_changes(verdict):
        command.say(note)
    return 0


if __name__ == "__main__":
    define_flags()
    command.run(main, POSITIONAL)
