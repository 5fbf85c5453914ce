"""Huge pages for tensors: what the kernel says of them (ground truth), and when none are asked for
(faults)."""

import resource
import sys

import numpy as np
import psutil
import pytest
import tensorflow as tf
from support import forked_command
from support.command_helpers import ROOT

from meta_impala.config import Config, resolve
from meta_impala.environments import Description
from meta_impala.learner import make_learner
from meta_impala.system import huge_pages

PONG = Description((4, 84, 84), np.dtype(np.uint8), 6, 4)

_RESERVED = """
import tensorflow as tf
from meta_impala.system import huge_pages
if {reserved}:
    assert huge_pages.reserve(200 * 2**20)
    assert not huge_pages.reserve(256 * 2**20)  # another run of the same process
tensor = tf.ones([25 * 2**20])  # 100 MiB
with open("/proc/self/smaps") as file:
    lines = [line.split() for line in file]
print(sum(int(words[1]) for words in lines if words[0] == "AnonHugePages:") / 1024)
"""


@pytest.mark.skipif(
    not huge_pages._are_given_if_asked(), reason="this machine gives huge pages always or never"
)
def test_tensors_are_in_huge_pages():
    def huge(reserved):
        code = _RESERVED.format(reserved=reserved)
        words = [sys.executable, "-c", code]
        result = forked_command.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
        return float(result.stdout)

    assert huge(True) >= 96 + huge(False)


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """The sizes that TensorFlow is asked for, on a machine with 16 GiB that gives huge pages."""
    sizes = []

    def empty(*, shape, dtype, init):
        assert not init
        sizes.append(shape[0] * dtype.size)
        raise tf.errors.ResourceExhaustedError(None, None, "too large for a test")

    setting = tmp_path / "enabled"
    setting.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "_SETTING", setting)
    monkeypatch.setattr(huge_pages, "_reserved", 0)
    monkeypatch.setattr(tf.raw_ops, "Empty", empty)
    machine = type("Memory", (), {"total": 16 * 2**30})()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    return sizes


def test_no_address_space_is_no_fault(asked):
    assert not huge_pages.reserve(2**30)
    assert asked == [2**30]


@pytest.mark.parametrize(
    ("size", "total", "expected"),
    [
        (2**26, 16, 2**26),
        (2**26 + 1, 16, 2**27),
        (10**12, 64, 2**33),
        (2**33, 10, 2**32),
        (2**33, 8, 2**32),
        (2**33, 1, 2**29),
    ],
)
def test_the_size_is_a_power_of_two_and_at_most_half_of_the_memory(
    asked, monkeypatch, size, total, expected
):
    machine = type("Memory", (), {"total": total * 2**30})()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    huge_pages.reserve(size)
    assert asked == [expected]


@pytest.mark.parametrize("setting", ["[always] madvise never\n", "always madvise [never]\n", None])
def test_where_the_kernel_need_not_or_cannot_be_asked_nothing_is_reserved(asked, setting):
    if setting is None:
        huge_pages._SETTING.unlink()
    else:
        huge_pages._SETTING.write_text(setting)
    assert not huge_pages.reserve(2**30)
    assert asked == []


def test_little_memory_is_left_in_small_pages(asked):
    assert not huge_pages.reserve(2**25)
    assert asked == []


def test_limited_address_space_is_left_alone(asked, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2**40, resource.RLIM_INFINITY))
    assert not huge_pages.reserve(2**30)
    assert asked == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [2**29]),
        ({"network": "deep"}, [2**32]),
        ({"network": "deep", "meta_gradient_mode": "reverse_over_forward"}, [2**33]),
        (
            {
                "network": "deep",
                "meta_gradient_mode": "reverse_over_forward",
                "micro_batches": 8,
            },
            [2**30],
        ),
        ({"network": "deep", "meta_parameters": "none"}, [2**32]),
        ({"batch_size": 2, "meta_batch_size": 2}, []),
        ({"learner_device": "gpu:0"}, []),
    ],
)
def test_a_learner_asks_for_what_its_update_keeps(asked, monkeypatch, settings, expected):
    monkeypatch.setattr(make_learner, "learner_device", lambda setting: setting.upper())
    config = resolve(Config(**({"network": "shallow", "learner_device": "cpu"} | settings)))
    make_learner.reserve_memory(config, PONG)
    assert asked == expected
