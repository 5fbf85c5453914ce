"""Example: the program from Python. Train, stop, continue, and use the agent elsewhere.

    python tools/example_python_entry.py [LOGDIR]

Also an optimiser of your own, which the meta-gradient goes through.
"""

from __future__ import annotations

import sys
import tempfile

import numpy as np
import tensorflow as tf

import meta_impala
from meta_impala.algorithm import optimizers


class Momentum:
    """Heavy-ball momentum: m ← 0.9 m + g, and the update is learning_rate · m.

    The meta-gradient goes through the update, so everything in it has to have a derivative.
    """

    def initial_slots(self, parameters):
        return {"momenta": [tf.zeros_like(parameter) for parameter in parameters]}

    def step(self, gradients, slots, learning_rate):
        pairs = zip(slots["momenta"], gradients, strict=True)
        momenta = [0.9 * momentum + gradient for momentum, gradient in pairs]
        return [learning_rate * momentum for momentum in momenta], {"momenta": momenta}


# Own optimisers have names in Python only; `--inner_optimizer` knows those of the package.
optimizers.register_optimizer("momentum", lambda settings, differentiate: Momentum())


def main(logdir: str) -> float:
    """Trains Catch in two halves, then plays; returns the mean return of ten games."""
    own = {"inner_optimizer": "momentum", "learning_rate": 2e-3}
    half = meta_impala.preset("catch", total_frames=20_000, **own)
    meta_impala.make_trainer(half, logdir).run()
    # The same folder with more frames: the run is continued from its newest checkpoint.
    whole = meta_impala.preset("catch", total_frames=40_000, **own)
    meta_impala.make_trainer(whole, logdir).run()

    agent = meta_impala.load(logdir, seed=1)
    environment = agent.make_environment()
    observation, total = environment.reset(seed=1)[0], 0.0
    agent.reset()
    games = 0
    while games < 10:
        step = environment.step(np.array([agent.act(observation)]))
        observation, total = step.observations[0], total + float(step.rewards[0])
        if step.episode_ends[0]:
            games += 1
            agent.reset()
    environment.close()
    return total / games


if __name__ == "__main__":
    print("mean return:", main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
