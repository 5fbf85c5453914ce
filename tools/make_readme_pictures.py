"""Makes README's pictures and its terminal excerpt from real runs of this version.

    python tools/make_readme_pictures.py --out=testdata/readme

Trains Catch (a minute on two cores) and runs the other commands on it, each as a person would:

    train.txt       what `meta-impala train --preset=catch` prints
    watch.png       `meta-impala watch --agent=pong`, some seconds after its start
    report.png      `meta-impala report` in headless Chromium, if that is installed
    made_with.json  version, machine, date

Every file is replaced. Look at each picture before you commit it.
"""

from __future__ import annotations

import io
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

from absl import flags
from PIL import Image

import meta_impala
from meta_impala import command
from meta_impala.config import presets
from meta_impala.config.number_flags import define_float, define_frames
from meta_impala.errors import RunFailed
from meta_impala.storage.files import write_atomically
from meta_impala.storage.results_folder import make_outdir
from meta_impala.system.user_path import define_path, user_path

FLAGS = flags.FLAGS

_COLUMNS = 80
_CHROMIUM = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def define_flags() -> None:
    """The flags of this tool."""
    define_path("out", None, "Folder to write to. Default: testdata/readme.")
    flags.DEFINE_string("preset", "catch", "What is trained.")
    define_frames("total_frames", None, "Frames, if not those of the preset.")
    define_float(
        "seconds", 20.0, "How long the agent plays before its picture is taken.", high=3600
    )


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "meta_impala", *arguments]


def _run(folder: pathlib.Path, *arguments: str) -> str:
    """Runs a command in a folder; returns its visible output.

    Raises:
      RunFailed: if it fails.
    """
    done = subprocess.run(
        _command(*arguments),
        cwd=folder,
        env=os.environ | {"COLUMNS": str(_COLUMNS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    shown = " ".join(["$ meta-impala", *arguments])
    if done.returncode:
        raise RunFailed(f"{shown}: exit code {done.returncode}: {done.stdout.strip()[-500:]}")
    return f"{shown}\n{done.stdout}"


def _watch(seconds: float) -> Image.Image:
    """A frame of the agent that comes with the program, as the page shows it."""
    with subprocess.Popen(
        _command("watch", "--agent=pong", "--web"), stdout=subprocess.PIPE, text=True
    ) as watching:
        try:
            assert watching.stdout is not None
            lines = (watching.stdout.readline() for _ in range(2))  # "loading", then the address
            url = [line.split(" ")[0] for line in lines][-1]
            if not url.startswith("http"):
                raise RunFailed("watch shows no page")
            with urllib.request.urlopen(f"{url}frame.jpg"):  # waits for the first
                time.sleep(seconds)
            with urllib.request.urlopen(f"{url}frame.jpg") as response:
                return Image.open(io.BytesIO(response.read()))
        finally:
            watching.send_signal(signal.SIGINT)


def _screenshot(page: pathlib.Path, out: pathlib.Path, profile: pathlib.Path) -> None:
    """A page of this machine in headless Chromium."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        command.say("no Chromium here: report.png is left out")
        return
    where = [f"--user-data-dir={profile}", "--window-size=1100,1400", f"--screenshot={out}"]
    subprocess.run(
        [chromium, *_CHROMIUM, *where, page.as_uri()], check=True, capture_output=True, timeout=120
    )


def main() -> int:
    """Runs the tool; returns its exit code."""
    presets.find(FLAGS.preset)
    out = make_outdir(FLAGS.out or str(user_path("testdata/readme")), "out")
    with tempfile.TemporaryDirectory() as name:
        folder, run = pathlib.Path(name), f"runs/{FLAGS.preset}"
        frames = [f"--total_frames={FLAGS.total_frames}"] if FLAGS.total_frames else []
        for file, arguments in (
            ("train.txt", ["train", f"--preset={FLAGS.preset}", *frames, f"--logdir={run}"]),
            ("", ["evaluate", f"--logdir={run}"]),  # the report shows it
            ("", ["report", "--out=report.html", run]),
        ):
            shown = _run(folder, *arguments)
            command.say(shown.rstrip())
            if file:
                text = shown.replace(f"{folder}/", "").replace(str(folder), "")
                write_atomically(out / file, text)
        _screenshot(folder / "report.html", out / "report.png", folder / "profile")
        _watch(FLAGS.seconds).save(out / "watch.png")
    made_with = {
        "meta_impala": meta_impala.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "date": time.strftime("%Y-%m-%d"),
    }
    write_atomically(out / "made_with.json", json.dumps(made_with, indent=1) + "\n")
    command.say(f"written to {out}")
    return 0


if __name__ == "__main__":
    define_flags()
    command.run(main)
