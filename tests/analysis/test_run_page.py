"""The report of runs as one HTML file (equivalence with the files, hostile input, structure)."""

import datetime
import html.parser
import json
import os
import re

import numpy as np
import pytest
from support.demonstration import ALL_RUNS, META_PONG, OLDER_PONG, copy_of

from meta_impala.analysis import curves, run_folders
from meta_impala.analysis.run_page import charts, page, panels, run_record, sections
from meta_impala.analysis.run_page.markup import Markup, element, escaped, table
from meta_impala.errors import UserError
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.run_status import read_status

NOW = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></title></svg><b>",
    "&lt;already&gt; &amp;",
    "a' onmouseover='x",
    'id="x" url(#y)',
    "line\nbreak \x1b[31m ‮ $x_1$",
]
MP4 = b"\0\0\0\x18ftypmp42" + bytes(100)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


class _Page(html.parser.HTMLParser):
    """Elements, addresses and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.addresses, self.ids, self.texts = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        for name, value in attributes:
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
                self.addresses.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_data(self, data):
        self.texts.append(data)


def _records(*paths, **options):
    folders = run_folders.find(map(str, paths))
    labels = run_folders.labels_of(folders)
    return [
        run_record.read(folder, label, **options)
        for folder, label in zip(folders, labels, strict=True)
    ]


def _html(records, title="Runs"):
    return page.html(records, title, NOW)


@pytest.fixture
def no_charts(monkeypatch):
    """Drawing takes seconds; a chart contains no text from files."""
    monkeypatch.setattr(charts, "draw", lambda *_, **__: Markup("<svg></svg>"))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A run with everything that a report shows."""
    path = copy_of(OLDER_PONG, tmp_path_factory.mktemp("runs") / "full")
    (path / "explain").mkdir()
    push = {"mean": 0.012, "standard_error": 0.003, "batches": 20, "t": 4.0}
    heading = {"value": 0.99, "push": push, "batches_up": 16, "batches_down": 4}
    headings = {
        "gamma": heading | {"direction": "up", "is_clear": True},
        "lambda": heading | {"direction": "down", "is_clear": False},
    }
    found = {"batches": 20, "frames_trained": 10_000_000, "heading": headings}
    (path / "explain" / "explain.json").write_text(json.dumps(found))
    (path / "explain" / "explain.png").write_bytes(PNG)
    (path / "video.mp4").write_bytes(MP4)
    (path / "evaluations.csv").write_text(
        "frames,mean_return,standard_error,episodes,gamma,lambda,seconds\n"
        "1000000,-19.5,0.5,20,0.99,0.99,10\n2000000,-18,,1,0.99,0.99,10\n"
    )
    return path


def test_the_page_loads_no_other_file(full):
    text = _html(_records(full, ALL_RUNS[0]))
    seen = _Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(seen.elements)
    assert all(address.startswith(("data:", "#")) for address in seen.addresses)
    assert "video" in seen.elements and "img" in seen.elements
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL).group(1)
    assert "@import" not in style and "url(" not in style
    assert "default-src 'none'" in text and 'name="viewport"' in text
    # Every chart refers to its own parts only, and to parts that there are.
    assert len(seen.ids) == len(set(seen.ids))
    used = set(re.findall(r'(?:url\(|xlink:href=")#([^)"]+)', text))
    assert used and used <= set(seen.ids)


@pytest.mark.usefixtures("no_charts")
def test_everything_of_a_run_is_shown(full):
    text = _html(_records(full))
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings == [
        "Runs",
        "Does it learn?",
        "Learning",
        "Meta-gradient",
        "Losses and entropy",
        "Optimisation and policy lag",
        "Speed and machine",
        "Evaluation",
        "A game",
        "Where the meta-gradient points",
        "Settings",
    ]
    for shown in (
        "It learns: the return rose from -20.59 to -14.89.",
        "−12.07 ± 1.00",  # 1.96 · 0.509 of evaluation.json
        "Discount γ",
        "Bootstrapping λ",
        "Policy lag",
        "not clear (leans down)",
        "0.012 ± 0.003",
        "<strong>10000000</strong>",  # total_frames, not the default
        "Dots: evaluations",
    ):
        assert shown in text, shown
    assert "Bad updates" not in text, "there were none"


def test_two_runs_differ_in_what_differs():
    one, other = ALL_RUNS[:2]
    text = sections.differences(_records(one, other))
    assert re.findall(r"<th scope=\"row\">(.*?)</th>", text) == ["--environment"]
    text = sections.differences(_records(*ALL_RUNS, OLDER_PONG))
    columns = re.findall(r"<th scope=\"col\">(.*?)</th>", text)
    assert columns[:2] == ["Run", "--environment"]
    assert "--meta_parameters" in columns and "--gamma" not in columns
    assert sections.differences(_records(one)) == ""
    assert "the same" in sections.differences(_records(one) * 2)


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_files_is_never_markup(tmp_path, full, text):
    run = copy_of(
        full, tmp_path / "run", network=text, wandb_project={text: [text]}, **{text: text}
    )
    status = {"state": "failed", "reason": text, "frames": 1}
    (run / "status.json").write_text(json.dumps(status))
    (run / "evaluation.json").write_text(json.dumps({"mean": text, "policy": text, "min": [text]}))
    heading = {text: {"value": text, "push": text, "direction": text, "is_clear": text}}
    (run / "explain" / "explain.json").write_text(json.dumps({"batches": text, "heading": heading}))
    record = run_record.read(RunFolder(run), text)
    plain = _html([run_record.read(RunFolder(run), "x")], "x")
    seen, expected = _Page(_html([record], text)), _Page(plain)
    assert seen.elements == expected.elements
    assert all(address.startswith(("data:", "#")) for address in seen.addresses)
    shown = "".join(seen.texts)
    if text.isprintable():
        assert shown.count(text) >= 5
    assert "\x1b" not in shown and "‮" not in shown


def test_values_are_escaped_and_markup_is_not():
    assert element("p", "<b>", class_='"') == '<p class="&quot;">&lt;b&gt;</p>'
    assert element("p", Markup("<b>x</b>")) == "<p><b>x</b></p>"
    assert escaped("x" * 1000).startswith("x" * 200 + "…")
    assert '<td data-label="&lt;i&gt;">1</td>' in table(["a", "<i>"], [["r", 1]])


def test_attributes_can_be_encoded_whatever_is_in_them():
    cell = table(["a", "\udcff\n"], [["r", 1]])
    assert r'data-label="\udcff\n"' in cell
    cell.encode()
    assert element("img", src="x" * 10_000, alt="a\x1bb") == '<img src="' + "x" * 10_000 + (
        r'" alt="a\x1bb"></img>'
    )


@pytest.mark.usefixtures("no_charts")
def test_a_folder_whose_name_is_not_utf_8_is_shown(tmp_path, full):
    runs = tmp_path / "runs"
    copy_of(full, runs / "plain")
    copy_of(full, runs / os.fsdecode(b"caf\xe9"), seed=2)
    text = _html(_records(runs)).encode().decode()
    assert text.count(r"caf\udce9") > 5
    assert r'data-label="caf\udce9"' in text and r'alt="The meta-gradient of caf\udce9' in text


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize(
    ("name", "content", "shown"),
    [
        ("video.mp4", b"<html>", "is not shown"),
        ("video.mp4", MP4 + bytes(run_record.MAX_VIDEO_BYTES), "is not shown"),
        ("explain/explain.png", b"<svg onload=alert(1)>", "is not shown"),
        ("explain/explain.json", b"[1]", "cannot be read"),
        ("evaluation.json", b"{", "cannot be read"),
        ("evaluations.csv", b"frames,mean_return\n1,2\n", ""),
        ("evaluations.csv", b"\0\0\0", "damaged lines are left out"),
    ],
)
def test_a_damaged_file_is_noted_and_the_rest_is_shown(tmp_path, full, name, content, shown):
    run = copy_of(full, tmp_path / "run")
    (run / name).write_bytes(content)
    (record,) = _records(run)
    assert [name in note and shown in note for note in record.notes] == ([True] if shown else [])
    assert "Return per game" in _html([record])


def test_a_run_that_has_just_begun_is_shown(tmp_path):
    run = copy_of(META_PONG, tmp_path / "run")
    for name in ("evaluation.json", "status.json"):
        (run / name).unlink()
    lines = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").write_text("".join(lines[:2]))
    text = _html(_records(run))
    assert "Return per game" not in text, "no game has finished"
    assert "Entropy" in text
    (run / "metrics.csv").write_text(lines[0])
    with pytest.raises(UserError, match="no metrics yet"):
        _records(run)


def _with_status(run, rows, **status):
    """A copy of a run with so many rows of metrics and this status."""
    copy_of(META_PONG, run)
    lines = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").write_text("".join(lines[: 1 + rows]))
    (run / "status.json").write_text(json.dumps(status))
    return run


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize("rows", [0, 3])
def test_how_a_run_ended_is_shown_also_before_its_first_row(tmp_path, rows):
    killed = {"state": "running", "frames": 7, "pid": 2**22 + 1, "checkpoint": "frames-7"}
    killed = _with_status(tmp_path / "killed", rows, **killed)
    failed = _with_status(tmp_path / "failed", rows, state="failed", frames=0, reason="no memory")
    text = _html(_records(killed, failed))
    assert "failed failed: no memory" in text
    assert "killed interrupted: the last trainer here (process 4194305) ended" in text
    assert "its last checkpoint is frames-7" in text
    assert '<td data-label="State">interrupted</td>' in text
    # Once, with the state that it has.
    assert text.count("no memory") == text.count("the last trainer here") == 1
    assert "The run failed: " not in text and ">nan<" not in text


def test_deleted_metrics_are_said_to_be_lost(tmp_path):
    lost = "metrics.csv: is missing; the run is at 378,880 frames (its rows are lost)"
    run = RunFolder(_with_status(tmp_path / "run", 3, state="stopped", frames=378_880))
    run.metrics_path.unlink()
    for read in (run_record.read_run_metrics, lambda folder, _: curves.read_rows(folder)):
        with pytest.raises(UserError, match=re.escape(lost)):
            read(run, read_status(run))
    # Of a run that ended badly the rest is shown.
    run.write_status("failed", 378_880, reason="no memory")
    metrics, notes = run_record.read_run_metrics(run, read_status(run))
    assert metrics == {} and [note.endswith(lost) for note in notes] == [True]
    with pytest.raises(UserError, match=re.escape(f"{lost}; the run failed: no memory")):
        curves.read_rows(run)


@pytest.mark.usefixtures("no_charts")
def test_what_is_wrong_with_the_evaluations_is_said(tmp_path):
    run = copy_of(META_PONG, tmp_path / "run")
    path = run / "evaluations.csv"
    head = "frames,mean_return,standard_error,episodes,gamma,lambda,seconds"
    path.write_text(f'{head}\n100,1,0.1,9,,,1\n"00,2,0.1,9,,,1\n300,3,0.1,9,,,1\n')
    (record,) = _records(run)
    assert record.evaluations.means.tolist() == [1.0, 3.0]
    assert record.notes == (f"{path}: 1 damaged lines are left out (line 3)",)


@pytest.mark.usefixtures("no_charts")
def test_what_is_wrong_with_the_metrics_is_said(tmp_path):
    run = copy_of(META_PONG, tmp_path / "run")
    path = run / "metrics.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\r\n".join([header, *rows, ""]), newline="")
    (whole,) = _records(run)
    assert len(whole.metrics["frames"]) == len(rows) and whole.notes == ()
    path.write_text("\n".join([header, rows[0], "x", *rows[1:], '"', ""]))
    (record,) = _records(run)
    assert record.notes == (f"{path}: 2 damaged lines are left out (line 3, {len(rows) + 3})",)
    assert len(record.metrics["frames"]) == len(rows)
    path.write_text("\n".join([header, *(row.replace(",", ";") for row in rows), ""]))
    message = rf"no row that can be read: {len(rows)} of its lines are damaged \(line 2, 3, 4, "
    for read in (_records, lambda run: curves.read_rows(RunFolder(run))):
        with pytest.raises(UserError, match=message):
            read(run)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="metrics.csv: cannot be read"):
        curves.read_rows(RunFolder(run))


def test_another_meta_parameter_has_its_panels(tmp_path):
    run = copy_of(META_PONG, tmp_path / "run")
    header, *rows = (run / "metrics.csv").read_text().splitlines()
    more = ",".join(["entropy_cost", "meta_gradient_entropy_cost", "x_step_entropy_cost"])
    table_of = "\n".join([f"{header},{more}", *(f"{row},0.01,-0.5,1e-4" for row in rows), ""])
    (run / "metrics.csv").write_text(table_of)
    groups = dict(panels.groups_of(_records(run)))
    assert "entropy_cost" in [panel.column for panel in groups["Learning"]]
    names = [panel.column for panel in groups["Meta-gradient"]]
    assert {"meta_gradient_entropy_cost", "x_step_entropy_cost"} <= set(names)


def test_more_runs_than_there_are_colours_are_refused():
    (record,) = _records(META_PONG)
    with pytest.raises(UserError, match="at most 28"):
        _html([record] * (charts.MOST_RUNS + 1))
    swatches = {charts.swatch(style) for style in range(charts.MOST_RUNS)}
    assert len(swatches) == charts.MOST_RUNS


def test_a_thinned_curve_keeps_its_extremes_and_its_ends():
    generator = np.random.default_rng(1)
    frames, values = np.arange(100_000.0), generator.normal(size=100_000)
    values[[5, 70_000]] = 50.0, -50.0
    values[[7, 99]] = np.nan
    few_frames, few = charts.thinned(frames, values)
    assert len(few) <= 800 and (np.diff(few_frames) > 0).all()
    assert few.max() == 50.0 and few.min() == -50.0
    assert few_frames[0] == 0 and few_frames[-1] == 99_999
    short = charts.thinned(frames[:800], values[:800])[1]
    assert len(short) == 798


def test_the_smoothed_curve_is_a_running_mean():
    values = np.random.default_rng(2).normal(size=200)
    values[17] = np.nan
    found = charts.smoothed(values)
    for place in range(200):
        window = values[max(0, place - 5) : place + 6]
        expected = np.nan if place == 17 else np.nanmean(window)
        assert found[place] == pytest.approx(expected, nan_ok=True)
    few = values[:30]
    assert charts.smoothed(few) is few
