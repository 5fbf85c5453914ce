"""Writes one HTML file that shows what runs did: curves, evaluation, settings, video.

    meta-impala report --out=report.html runs/pong_1 runs/pong_2

Runs are also found below the folders that are given. The file needs no network and nothing beside
it: it can be opened in any browser, sent by mail, and printed. A run that is still training is
shown so far. Results of `evaluate --record_video` and `explain` in a run's folder are included.
"""

from __future__ import annotations

import datetime
import pathlib

from absl import flags

from meta_impala import command
from meta_impala.analysis import run_folders
from meta_impala.analysis.run_page import run_record
from meta_impala.config.list_flags import define_list
from meta_impala.errors import UserError, escaped, one_line, warn
from meta_impala.storage.files import write_atomically
from meta_impala.storage.results_folder import check_file
from meta_impala.system.user_path import define_path, user_path

FLAGS = flags.FLAGS

POSITIONAL = "RUN ..."


def define_flags() -> None:
    """The flags of this command."""
    define_path("out", None, "File to write; must end in .html or .htm. Default: report.html.")
    define_list("labels", None, "One label per run; default: the folders' names.")
    flags.DEFINE_string("title", None, "Heading; default: the environments that were played.")
    flags.DEFINE_bool(
        "video", True, "Whether video.mp4 of a run is put into the file (at most 8 MiB)."
    )


def _out() -> pathlib.Path:
    path = pathlib.Path(FLAGS.out or user_path("report.html"))
    return check_file(path, "out", ".html", ".htm")


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    if not arguments:
        raise UserError("give at least one run folder, or a folder above runs")
    out = _out()
    folders = run_folders.find([str(user_path(path)) for path in arguments])
    labels = run_folders.labels_of(folders, FLAGS.labels)
    records, left_out = [], []
    for folder, label in zip(folders, labels, strict=True):
        try:
            records.append(run_record.read(folder, label, video=FLAGS.video))
        except UserError as error:
            left_out.append(str(error))
    if not records:
        raise UserError("; ".join(left_out))
    from meta_impala.analysis.run_page import page

    now = datetime.datetime.now().astimezone()
    text = page.html(records, FLAGS.title or page.title_of(records), now)
    try:
        write_atomically(out, text)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written ({one_line(error)})") from None
    for line in left_out:
        warn(f"left out: {line}")
    runs = "1 run" if len(records) == 1 else f"{len(records)} runs"
    command.say(f"wrote {escaped(str(out))} ({runs}, {len(text.encode()) / 2**20:.1f} MiB)")
    command.say(f"open it in a browser: {out.as_uri()}")
    return 0


if __name__ == "__main__":
    define_flags()
    command.run(main, POSITIONAL)
