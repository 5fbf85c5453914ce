"""Several learners as real processes. Equivalence: given batches, two learners with half the
columns each end where one with all of them does, and bit-equal to each other. Fault: one dies.
"""

import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest
from support import forked_command, learner_process
from support.helpers import perturb

from meta_impala.config import Config, resolve
from meta_impala.learner.state import FIXED

TESTS = pathlib.Path(__file__).parent.parent
PROGRAM = TESTS / "support" / "learner_process.py"


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The final arrays of two learners, by name."""
    folder = tmp_path_factory.mktemp("learners")
    ports = ",".join(map(str, free_ports(2)))
    environment = os.environ | {"PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    processes = [
        forked_command.Popen(
            [
                sys.executable,
                TESTS / "support" / "learner_process.py",
                ports,
                str(i),
                folder / f"{i}.npz",
            ],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:]
    return [dict(np.load(folder / f"{i}.npz")) for i in range(2)]


@pytest.mark.parametrize("name", learner_process.VARIANTS)
def test_two_learners_have_the_weights_of_one(two, name):
    settings = learner_process.SETTINGS | learner_process.VARIANTS[name]
    config = resolve(Config(**settings, meta_gradient_mode="reverse_over_forward"))
    learner = learner_process.make_learner(config)
    perturb(learner_process.Whole(config, learner), seed=0)
    start = [variable.numpy() for variable in learner.state.shared_variables]
    rows, _ = learner_process.train(config, learner)
    expected = learner_process.results(learner, rows)
    assert any(row[FIXED.index("clip_coefficient")] < 1.0 for row in rows)
    pairs = zip(start, learner.state.shared_variables, strict=True)
    moved = [np.abs(now.numpy() - before).max() for before, now in pairs if before.size]
    assert sum(distance > 1e-3 for distance in moved) >= 8
    for key, value in expected.items():
        ours, other = (arrays[f"{name} {key}"] for arrays in two)
        np.testing.assert_array_equal(ours, other)
        np.testing.assert_allclose(ours, value, rtol=2e-4, atol=2e-6, err_msg=key)


def test_a_learner_that_died_ends_the_update_of_the_others(two):
    message = str(two[0]["lost"])
    assert message.startswith("the other learners cannot be reached any more (")
    assert "\n" not in message
    assert two[0]["unchanged"]
    assert "lost" not in two[1]
