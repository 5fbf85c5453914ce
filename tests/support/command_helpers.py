"""What the tests of the commands share: a tiny run's flags, and how a mistake is answered."""

from __future__ import annotations

import importlib.util
import pathlib
import subprocess
import sys
import types

from support import forked_command

ROOT = pathlib.Path(__file__).parents[2]
TINY = (
    "--environment=Catch",
    "--batch_size=8",
    "--envs_per_actor=8",
    "--unroll_length=5",
    "--log_frames=400",
    "--mlp_sizes=8",
)

# Importing TensorFlow would fail.
_WITHOUT_TENSORFLOW = """
import runpy, sys
sys.modules["tensorflow"] = None
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


def run_tool(name: str, *arguments: str, light: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs a command of tools/ to its end."""
    return forked_command.run(
        [sys.executable, f"tools/{name}.py", *arguments],
        light=light,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def run_module(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of the package, such as `meta_impala.explain`, to its end."""
    return forked_command.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def load_tool(name: str) -> types.ModuleType:
    """A command of tools/ as a module."""
    specification = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def refused(module: str, *arguments: str) -> str:
    """The one line in which a command answers a mistake, before TensorFlow is imported."""
    result = forked_command.run(
        [sys.executable, "-c", _WITHOUT_TENSORFLOW, module, *arguments],
        light=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    return result.stderr
