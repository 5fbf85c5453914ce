"""The wheel, built, installed and used outside the checkout (command).

The environment takes everything but this package from the one that runs the tests, so that nothing
is downloaded.
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest
from support.command_helpers import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(
        ROOT / "meta_impala", source / "meta_impala", ignore=shutil.ignore_patterns("__pycache__")
    )
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", f"--wheel-dir={out}"]
    subprocess.run([sys.executable, "-m", "pip", *build, str(source)], check=True, timeout=300)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with an environment that has the wheel, and the folder to work in."""
    place = tmp_path_factory.mktemp("place")
    venv.create(place / "env", with_pip=True)
    python = place / "env/bin/python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    install = ["install", "--no-deps", "--no-index", "--ignore-installed", str(wheel)]
    subprocess.run([python, "-m", "pip", *install], check=True, timeout=300)
    # After it in the search path; an editable install there is not looked at.
    pathlib.Path(site, "tests.pth").write_text(sysconfig.get_path("purelib"))
    (place / "work").mkdir()
    return place


def run(installed, *words, code=0):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{installed / 'env/bin'}{os.pathsep}{environment['PATH']}"
    result = subprocess.run(
        words,
        cwd=installed / "work",
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == code, (words, result.stdout, result.stderr)
    return result.stdout


def test_the_wheel_is_complete(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for pattern in ("**/*.py", "**/*.flags", "**/*.csv", "**/*.toml", "**/*.npz", "py.typed"):
        for path in (ROOT / "meta_impala").glob(pattern):
            assert path.relative_to(ROOT).as_posix() in names
    assert not any(name.startswith(("tests/", "tools/", "testdata/")) for name in names)
    assert wheel.stat().st_size < 5_000_000


def test_everything_is_done_from_the_installed_wheel(installed):
    where = run(installed, "python", "-c", "import meta_impala; print(meta_impala.__file__)")
    assert where.startswith(str(installed))
    assert run(installed, "meta-impala", "--version").startswith("meta_impala ")
    train = ["train", "--preset=catch", "--total_frames=40k", "--logdir=runs/catch"]
    assert "finished after 40,000 frames" in run(installed, "meta-impala", *train)
    assert "mean:" in run(
        installed, "meta-impala", "evaluate", "--logdir=runs/catch", "--episodes=20"
    )
    run(installed, "meta-impala", "export", "--logdir=runs/catch", "--out=catch.npz")
    run(installed, "meta-impala", "evaluate", "--agent=catch.npz", "--episodes=3")
    run(installed, "meta-impala", "plot", "runs/catch")
    run(installed, "meta-impala", "explain", "--logdir=runs/catch", "--batches=2", "--nofigure")
    cost = run(installed, "meta-impala", "suite", "--out=runs/grid", "--dry_run", "gamma_grid")
    assert "runs (57 games" in cost
    illustrative = ["illustrative", "--example=discount", "--episodes=20", "--seeds=1"]
    run(installed, "meta-impala", *illustrative, "--nofigure", "--outdir=runs/discount")
    assert "complete -o filenames" in run(installed, "meta-impala", "completion", "bash")
    pong = ["evaluate", "--agent=pong", "--episodes=1", "--max_episode_frames=400"]
    assert "ALE/Pong-v5" in run(installed, "meta-impala", *pong)
    assert "evaluate" in run(installed, "python", "-m", "meta_impala", "--help")


def test_a_comparison_finds_the_published_tables(installed):
    pytest.importorskip("rliable")
    shutil.copytree(ROOT / "testdata/demonstration/runs", installed / "work/shipped")
    report = run(installed, "meta-impala", "compare", "--nopictures", "shipped")
    assert "IMPALA" in report and "Breakout" in report


def commands_of_readme():
    """Every `meta-impala` command line of the README."""
    text = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(r"```(?:bash|sh)\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in re.split(r"\n|&&|\|", block)]
    words = [shlex.split(line, comments=True) for line in lines if "meta-impala " in line]
    return [line[[pathlib.Path(w).name for w in line].index("meta-impala") :] for line in words]


def test_every_command_of_the_readme_has_help(installed):
    for _, *words in commands_of_readme():
        assert "usage: meta-impala" in run(installed, "meta-impala", *words, "--help"), words
        for word in words:
            assert not re.search(r"(^|=)(testdata|tools|meta_impala)/", word), words
