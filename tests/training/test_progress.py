"""The progress line: it ticks between rows and fits any terminal (command)."""

import contextlib
import io
import os
import pty
import re
import select
import sys
import time

import pytest

from meta_impala.training import progress as progress_lib
from meta_impala.training.progress import Progress, hours

ROW = {"frames": 12_812_800, "frames_per_second": 15321.4, "episode_return": -20.96}
ROW |= {"gamma": 0.995, "lambda": 0.9904, "policy_cost": 1.25}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def at_a_terminal(monkeypatch):
    """Not a fixture: pytest sets its own stderr between those and the test."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


def bar_of(progress, columns):
    progress._bar.dynamic_ncols = lambda file: (columns - 1, 23)  # as tqdm counts them
    return str(progress._bar)


@pytest.mark.parametrize("columns", [10, 40, 78, 79, 80, 110, 111, 200])
@pytest.mark.parametrize("learned", [(), ("policy_cost",)])
def test_the_line_fits_the_terminal_without_cutting_numbers(monkeypatch, columns, learned):
    at_a_terminal(monkeypatch)
    progress = Progress(30_000_000, 0, learned)
    try:
        assert re.search("building|starting", bar_of(progress, columns)) or columns < 40
        progress.advance(20)
        assert not re.search("building|starting", bar_of(progress, columns))
        progress.update(ROW, 30_000_000)
        text = bar_of(progress, columns)
        assert len(text) < columns
        if columns >= 40:
            assert re.match(r" 43%.*<[\d:]+, .*return -20\.96", text)
            assert text.endswith("]") or learned
        assert ("γ 0.9950 λ 0.9904" in text) == (columns >= 79)
    finally:
        progress.close()


def test_the_line_of_a_terminal_is_redrawn_without_updates(monkeypatch):
    terminal = at_a_terminal(monkeypatch)
    monkeypatch.setattr(Progress, "SECONDS_BETWEEN_TICKS", 0.01)
    progress = Progress(1000, 0)
    try:
        written = len(terminal.getvalue())
        deadline = time.monotonic() + 20
        while len(terminal.getvalue()) == written and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(terminal.getvalue()) > written
        progress.advance(500)
        while "50%" not in terminal.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert " 50%" in terminal.getvalue()
    finally:
        progress.close()


def test_without_a_terminal_a_line_is_printed_between_slow_rows(monkeypatch, capsys):
    monkeypatch.setattr(Progress, "SECONDS_BETWEEN_TICKS", 0.01)
    monkeypatch.setattr(Progress, "SECONDS_OF_SILENCE", 0.05)
    progress = Progress(1000, 0)
    out, deadline = "", time.monotonic() + 20
    try:
        while "building the first update" not in out and time.monotonic() < deadline:
            out += capsys.readouterr().out
        assert out.startswith("          0 frames  building the first update\n")
        progress.advance(640)
        while "640 frames" not in out and time.monotonic() < deadline:
            out += capsys.readouterr().out
        assert re.search(r"^        640 frames +[\d,]+ frames/s$", out, re.MULTILINE)
    finally:
        progress.close()


def test_without_a_terminal_nothing_is_printed_between_fast_rows(capsys):
    progress = Progress(1000, 0)
    progress.update(ROW | {"frames": 500}, 1000)
    progress.advance(600)
    progress.update(ROW | {"frames": 1000}, 1000, last=True)
    progress.close()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["500", "1,000"]


def test_a_terminal_without_a_size_or_a_closed_one_does_not_end_the_run(monkeypatch):
    is_whole = False
    ours, theirs = pty.openpty()
    # Closing it fails, too: the rest of a line can no longer be written.
    with contextlib.suppress(OSError), open(theirs, "w") as screen:
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setattr(Progress, "SECONDS_BETWEEN_TICKS", 0.01)
        progress = Progress(1000, 0)
        assert select.select([ours], [], [], 10)[0]
        os.close(ours)
        time.sleep(0.05)
        progress.advance(10)
        progress.update(ROW | {"frames": 500}, 1000)
        progress.close()
        monkeypatch.undo()
        is_whole = True
    assert is_whole


def test_every_format_shows_the_time_left():
    assert all("{remaining}" in form for form in progress_lib._FORMATS.values())


def test_the_time_left_may_be_days():
    assert [hours(seconds) for seconds in (0, 59.9, 3661, 90_000 * 4)] == [
        "00:00:00",
        "00:00:59",
        "01:01:01",
        "100:00:00",
    ]
