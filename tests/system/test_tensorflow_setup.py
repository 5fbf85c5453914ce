"""TensorFlow's settings where an environment has used TensorFlow before (fault)."""

import subprocess
import sys

import tensorflow as tf
from support import forked_command
from support.command_helpers import ROOT
from support.run_helpers import make_config, make_trainer

from meta_impala.system.processors import processors


def run(code):
    return forked_command.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_settings_that_come_too_late_are_one_warning():
    result = run(
        "import tensorflow as tf\n"
        "from meta_impala.system import tensorflow_setup as setup\n"
        "tf.constant(1.0) + 1.0\n"
        "setup.configure_tensorflow(deterministic=True, cores=3)\n"
        "setup.configure_for_inference()",
    )
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    assert result.stderr.count("\n") == 1
    assert "TensorFlow was used before its threads and devices could be set" in result.stderr


def test_a_process_without_tensorflow_2_is_refused():
    result = run(
        "import tensorflow as tf\n"
        "tf.compat.v1.disable_eager_execution()\n"
        "from meta_impala.system.tensorflow_import import import_tensorflow\n"
        "import_tensorflow()",
    )
    assert result.returncode == 1 and "UserError: TensorFlow 2 was disabled" in result.stderr


def test_an_update_is_a_graph_even_if_functions_were_to_run_eagerly(tmp_path, capsys):
    """Eagerly, the network's variables would be substituted while actors read them."""
    trainer = make_trainer(tmp_path, make_config())
    tf.config.run_functions_eagerly(True)
    try:
        trainer.learner.build()
        assert not tf.config.functions_run_eagerly()
    finally:
        tf.config.run_functions_eagerly(False)
    assert "run_functions_eagerly was on" in capsys.readouterr().err


def test_python_without_docstrings_is_refused():
    code = "from meta_impala.system.tensorflow_import import import_tensorflow\nimport_tensorflow()"
    words = [sys.executable, "-OO", "-c", code]
    result = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert "UserError: python -OO or PYTHONOPTIMIZE=2" in result.stderr


_STATE = (
    "threads = tf.config.threading.get_intra_op_parallelism_threads()\n"
    "rewrites = tf.config.optimizer.get_experimental_options()\n"
    "from tensorflow.python.framework import config\n"
    "print(threads, rewrites, config.is_op_determinism_enabled())"
)


def test_a_program_keeps_its_own_threads():
    for first, threads in (
        ("", max(1, processors() // 2)),
        ("tf.config.threading.set_intra_op_parallelism_threads(3)\n", 3),
        ("tf.constant(1.0) + 1.0\n", 0),  # TensorFlow has begun with its default
    ):
        result = run(
            "import tensorflow as tf\n"
            "from meta_impala.system import tensorflow_setup as setup\n"
            f"{first}setup.configure_in_program(deterministic={bool(first)})\n{_STATE}"
        )
        assert (result.returncode, result.stderr) == (0, ""), result.stderr
        number, rest = result.stdout.split(" ", 1)
        assert int(number) == threads and rest.strip().endswith(str(bool(first)))
        for rewrite in ("constant_folding", "arithmetic_optimization"):
            assert f"'{rewrite}': False" in rest
