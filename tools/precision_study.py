"""What bfloat16 does to the gradient and to the meta-gradient of a trained run.

    python tools/precision_study.py --logdir=runs/pong --batches=50

Plays the run's newest checkpoint, holds its parameters fixed, and derives every update twice, with
`--precision=float32` and with `--precision=bfloat16`. Prints relative errors and cosines.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from absl import flags

from meta_impala import command
from meta_impala.config import ActingSettings, AgentSettings
from meta_impala.config.number_flags import define_integer, define_seed
from meta_impala.storage.trained_run import TrainedRun, open_trained_run, refuse_no_meta_gradient
from meta_impala.storage.trust import define_trust_flag, trust_of_flags
from meta_impala.system.tensorflow_import import import_tensorflow
from meta_impala.system.user_path import define_path

FLAGS = flags.FLAGS
_QUANTITIES = ("gradient", "gradient of J'", "meta-gradient")


def define_flags() -> None:
    """The flags of this command."""
    define_trust_flag()
    define_path("logdir", None, "Folder of the run.")
    define_integer("batches", 50, "How many updates.")
    define_seed("Seed of the games.")


def _derived(run: TrainedRun, precision: str) -> tuple[Any, Any]:
    """The learner of a precision, and (τ, τ') -> the quantities of one update as vectors."""
    import tensorflow as tf

    from meta_impala.algorithm import meta_gradient
    from meta_impala.storage.trained_agent import load_learner

    config = dataclasses.replace(run.config, precision=precision)
    learner, _ = load_learner(run.folder.checkpoints, config, run.description)

    @tf.function(autograph=False)
    def derive(batch: Any, meta_batch: Any) -> Any:
        parts = learner.factory.parts(
            batch, meta_batch, tf.constant(config.learning_rate, tf.float32)
        )
        with tf.GradientTape() as tape:
            live = [tf.identity(parameter) for parameter in parts.parameters]
            tape.watch(live)
            loss, _ = parts.inner_objective(live, parts.x)
        gradient = tape.gradient(loss, live, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        step = meta_gradient.nested_tapes(*parts)
        _, _, sensitivity = meta_gradient.meta_loss_and_gradient(
            parts.meta_objective, step.inner.parameters
        )
        flat = [tf.concat([tf.reshape(g, [-1]) for g in gs], 0) for gs in (gradient, sensitivity)]
        return [*flat, tf.reshape(step.meta_gradient[0], [-1])]

    return learner, derive


def main() -> int:
    """Runs the command; returns its exit code."""
    run = open_trained_run(FLAGS.logdir, trust_of_flags())
    refuse_no_meta_gradient(run)
    import_tensorflow()
    import tensorflow as tf

    from meta_impala.actors.startup import make_actor
    from meta_impala.actors.trajectory import Unroll
    from meta_impala.agent.policy import Policy
    from meta_impala.environments import registry
    from meta_impala.system.tensorflow_setup import configure_tensorflow

    config, description = run.config, run.description
    configure_tensorflow(deterministic=config.deterministic)
    learner, exact = _derived(run, "float32")
    _, rough = _derived(run, "bfloat16")
    columns = config.batch_size
    made = registry.make(
        config.environment,
        columns,
        config.protocol,
        environment_kwargs=config.environment_arguments,
    )
    policy = Policy(learner.state.network, config.part(AgentSettings), description, columns)
    actor = make_actor(0, config.part(ActingSettings), policy, made)
    actor.reset(FLAGS.seed, learner.state.network.settings.core_state_size)
    snapshot = learner.snapshot()

    def play() -> Unroll:
        return Unroll(*map(tf.constant, actor.unroll(snapshot).unroll))

    batch, errors, cosines = play(), [], []
    for _ in range(FLAGS.batches):
        following = play()
        meta_batch = following.map(
            lambda rows: rows[:, : config.meta_batch_size],
            lambda array: array[: config.meta_batch_size],
        )
        pairs = [
            (a.numpy().astype(np.float64), b.numpy().astype(np.float64))
            for a, b in zip(exact(batch, meta_batch), rough(batch, meta_batch), strict=True)
        ]
        lengths = [(np.linalg.norm(a), np.linalg.norm(b)) for a, b in pairs]
        errors.append(
            [np.linalg.norm(b - a) / n for (a, b), (n, _) in zip(pairs, lengths, strict=True)]
        )
        cosines.append([a @ b / (n * m) for (a, b), (n, m) in zip(pairs, lengths, strict=True)])
        batch = following
    actor.close()
    command.say(
        f"{config.environment} after {int(learner.state.frames.numpy()):,} frames, "
        f"{FLAGS.batches} batches of {columns}: bfloat16 against float32"
    )
    command.say(
        f"{'':16} {'relative error: median':>24} {'90 %':>8} {'most':>8} {'cosine: least':>15}"
    )
    for index, name in enumerate(_QUANTITIES):
        error = np.array(errors)[:, index]
        command.say(
            f"{name:16} {np.median(error):24.4f} {np.quantile(error, 0.9):8.4f} "
            f"{error.max():8.4f} {np.array(cosines)[:, index].min():15.5f}"
        )
    return 0


if __name__ == "__main__":
    define_flags()
    command.run(main)
