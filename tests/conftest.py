"""What must be set before TensorFlow's first import, and before the first process of a test."""

import os
import signal
from collections.abc import Iterator

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# Under nohup every process of a test would inherit that SIGHUP is ignored, and some are to obey
# it. One that is caught is not inherited, and these tests still survive it.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda number, frame: None)
# A shell without job control starts what it puts in the background with SIGINT ignored.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def eager() -> Iterator[None]:
    """Functions run operation by operation: a graph of a few tiny updates costs ten times them.

    It is the same Python code; that its graph does the same is tested where graphs are.
    """
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


# `pytest -m fast`, under a minute on two cores: these folders, but for the files that start
# processes, play Atari or differentiate through whole updates.
_FAST_FOLDERS = (
    "algorithm",
    "analysis",
    "config",
    "environments",
    "evaluation",
    "experiments",
    "networks",
    "published",
    "system",
)
_NOT_FAST = (
    "test_atari.py",
    "test_atari_render.py",
    "test_attribution.py",
    "test_auxiliary_heads.py",
    "test_bootstrapped_target.py",
    "test_comparison.py",
    "test_ending.py",
    "test_evaluator.py",
    "test_flags.py",
    "test_forked_process.py",
    "test_learned_coefficients.py",
    "test_live_agent.py",
    "test_live_game.py",
    "test_meta_gradient.py",
    "test_explanation_samples.py",
    "test_signals.py",
    "test_start_recorder.py",
    "test_suite_runner.py",
    "test_switches.py",
    "test_tensorflow_setup.py",
    "test_trace.py",
    "test_video.py",
    "test_watchdog.py",
    "test_window_gradient.py",
)


# The folders whose files take longest: last, one of them would keep a single process busy.
_FIRST_FOLDERS = ("commands", "distributed", "training", "learner", "algorithm")


def _place(item: pytest.Item) -> int:
    folder = item.path.parent.name
    return _FIRST_FOLDERS.index(folder) if folder in _FIRST_FOLDERS else len(_FIRST_FOLDERS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_place)
    for item in items:
        is_fast = item.path.parent.name in _FAST_FOLDERS and item.path.name not in _NOT_FAST
        if is_fast and item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.fast)
