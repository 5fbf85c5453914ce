"""Ctrl-C at any moment of a command's start: one line and exit code 130 (command)."""

import os
import signal
import subprocess
import sys

import pytest
from support.command_helpers import ROOT

# A module whose import takes long stands for NumPy, absl and TensorFlow.
_AT_AN_IMPORT = """
import os, signal, sys

interrupted_at = sys.argv.pop(1)

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == interrupted_at:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from meta_impala.__main__ import main
main()
"""

# The same for `python -m`, which imports this first.
_SITECUSTOMIZE = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPTED_AT"]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
"""

_WHILE_STDERR_IS_CAPTURED = """
import os, re, signal
from meta_impala.system.interrupt import leave_on_interrupt
from meta_impala.system.tensorflow_import import without_noise

leave_on_interrupt()
with without_noise(re.compile(b"x")):
    os.kill(os.getpid(), signal.SIGINT)
"""


def run(code, *words, environment=None):
    start = ["-c", code] if code else ["-m"]
    return subprocess.run(
        [sys.executable, *start, *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.mark.parametrize("module", ["meta_impala.cli", "absl", "numpy", "meta_impala.doctor"])
def test_an_interrupt_during_an_import_is_one_line(module):
    result = run(_AT_AN_IMPORT, module, "doctor", "no/such/run")
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("module", ["absl", "numpy"])
@pytest.mark.parametrize("start", ["meta_impala.train", "meta_impala.cli", "meta_impala"])
def test_an_interrupt_during_an_import_of_any_entry_point(start, module, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "INTERRUPTED_AT": module}
    result = run("", start, "doctor", "no/such/run", environment=environment)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "interrupted\n")


def test_an_interrupt_while_tensorflows_output_is_suppressed_is_reported():
    result = run(_WHILE_STDERR_IS_CAPTURED)
    assert (result.returncode, result.stderr) == (130, "interrupted\n")
