"""Example: a network of your own, in place of the torsos of the package.

    python tools/example_own_network.py [LOGDIR]

From the command line, with the folder of this file on PYTHONPATH:

    meta-impala train --preset=catch --network=example_own_network:RowByRow --logdir=runs/rows

Core, heads and the embedding of η stay those of the package: a torso ends where they begin.
"""

from __future__ import annotations

import sys
import tempfile

import sonnet as snt
import tensorflow as tf

import meta_impala
from meta_impala.networks.torsos import Torso


class RowByRow(Torso):
    """The rows of a board, each through the same layer; then a layer that sees all of them."""

    def __init__(self, dtype, compute_dtype=None):
        super().__init__(dtype, compute_dtype)
        # Sonnet's modules, as attributes: the meta-gradient runs the network with other weights in
        # their places.
        self.row = snt.Linear(16)
        self.all_rows = snt.Linear(64)

    def body(self, observations):
        """φ `[N, F]`, what the last hidden layer sees."""
        rows = tf.cast(observations, self._dtype)  # [N, 10, 5]
        return snt.flatten(tf.nn.relu(self.row(rows)))

    @property
    def last_layer(self):
        """The last hidden layer, at whose input the embedding of η joins."""
        return self.all_rows


def main(logdir: str) -> float:
    """Trains it on Catch for a few seconds; returns the mean of 20 games."""
    name = "example_own_network:RowByRow"
    config = meta_impala.preset("catch", network=name, total_frames=80_000)
    meta_impala.make_trainer(config, logdir).run()
    # A run names its module, and loading it imports the module: say that you trust it.
    return meta_impala.load(logdir, trust_modules=True).evaluate(episodes=20)["mean"]


if __name__ == "__main__":
    print("mean return:", main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
