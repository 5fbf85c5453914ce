"""The explain command as a user runs it (command)."""

import json
import re
import shutil
import types

import pytest
from support.command_helpers import refused, run_module
from support.run_helpers import BATCH_FRAMES, files_of, make_config, make_trainer

from meta_impala import explain
from meta_impala.command import LOADING
from meta_impala.storage.run_folder import RunFolder

BATCHES, STEPS, GAMES = 3, 5, 4
PLACES = {
    "value targets": "returns",
    "policy advantages": "returns",
    "network": "embedding",
    "values in the targets": "embedding",
    "importance weights": "importance weights",
    "update rule": "any",
}
META_BATCHES = (
    "τ itself",
    "next unroll of the same games",
    "same games, 20 unrolls later",
    "other games",
)
PAIRS = [
    f"{META_BATCHES[0]}, {META_BATCHES[1]}",
    f"{META_BATCHES[0]}, {META_BATCHES[2]}",
    f"{META_BATCHES[0]}, {META_BATCHES[3]}",
    f"{META_BATCHES[1]}, {META_BATCHES[2]}",
    f"{META_BATCHES[1]}, {META_BATCHES[3]}",
    "one update and the next, each on the meta batch of training",
]
NUMBER = r"[+-]\d\.\d\de[+-]\d\d"
PUSH = re.compile(rf"({NUMBER}) ± \d\.\de[+-]\d\d")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "catch"
    config = make_config(
        total_frames=20 * BATCH_FRAMES,
        envs_per_actor=4,
        learning_rate_schedule="linear",
        deterministic=True,
    )
    assert make_trainer(folder, config).run() == "finished"
    return folder


@pytest.fixture(scope="module")
def explained(trained):
    before = files_of(trained)
    result = run_module(
        "meta_impala.explain", f"--logdir={trained}", f"--batches={BATCHES}", "--warmup=1"
    )
    assert result.returncode == 0, result.stderr
    after = files_of(trained)
    written = {name: after.pop(trained / "explain" / name)
               for name in ("explain.md", "explain.json", "explain.png")}  # fmt: skip
    assert after == before, "nothing else in the folder changes"
    return result, written


def _tables(lines):
    """The Markdown tables of the text, as lists of rows of cells."""
    tables, rows = [], []
    for line in [*lines, ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            assert set("".join(rows[1])) == {"-"}
            tables.append([rows[0], *rows[2:]])
            rows = []
    return tables


def _shown(text):
    """The mean of "+1.00e-03 ± 2.0e-04"."""
    return float(PUSH.fullmatch(text).group(1))


def test_every_line_that_is_printed(trained, explained):
    result, written = explained
    numbers = json.loads(written["explain.json"])
    assert result.stderr == "", "no noise, and no progress bar where nobody looks"
    loading, first, empty, *lines, also_empty, last = result.stdout.splitlines()
    assert loading == LOADING
    assert first == f"playing {BATCHES} batches of meta_impala/Catch-v0 with frames-400"
    assert last == f"written to {trained / 'explain'}"
    assert empty == also_empty == ""
    assert "\n".join(lines) + "\n" == written["explain.md"].decode()

    assert [line for line in lines if line.startswith("#")] == [
        "# What the meta-gradient does",
        "## Where γ and λ are heading",
        "## Which term, along which path",
        "## Where in the unroll",
        "## How independent is τ'?",
        "## Sizes",
    ]
    assert (
        f"meta_impala/Catch-v0, 400 frames trained (frames-400); {BATCHES} batches of {GAMES} "
        f"games × {STEPS} steps, warm-up 1, seed 1."
    ) in lines
    assert "other games." in lines  # 2 actors of 4 environments, batches of 4
    assert "rate, here 0.0005, that of the run's last update." in result.stdout  # 0.01 · 20/400

    # Where they are heading: in words, and the numbers behind them.
    for symbol, name in (("γ", "gamma"), ("λ", "lambda")):
        heading = numbers["heading"][name]
        (index,) = (i for i, line in enumerate(lines) if line.startswith(f"- {symbol} "))
        up, down = heading["batches_up"], heading["batches_down"]
        assert up + down == BATCHES
        assert heading["direction"] == ("up" if heading["push"]["mean"] > 0 else "down")
        agreeing = up if heading["direction"] == "up" else down
        assert f"{heading['direction']}: {agreeing} of {BATCHES} batches, t = " in lines[index]
        assert f"t = {heading['push']['t']:.1f}" in lines[index]
        assert ("no clear direction" in lines[index]) == (abs(heading["push"]["t"]) < 2)
        assert f"Now {heading['value']:.4f}" in lines[index]
        largest = max(PLACES, key=lambda p: abs(numbers["by_place"][name][p]["mean"]))  # noqa: B023
        assert lines[index + 1].endswith(f"; the largest part is through the {largest}.")
        assert _shown(lines[index + 1].split("Push ")[1].split(";")[0]) == pytest.approx(
            heading["push"]["mean"], rel=0.01
        )
    horizon = 1 / (1 - numbers["heading"]["gamma"]["value"])
    assert f"effective horizon 1/(1−γ) = {horizon:.0f} agent steps" in result.stdout

    places, times, cosines, meta_batches, sizes = _tables(lines)

    assert places[0] == ["path", "place", "push on γ", "push on λ"]
    for (path, place, *shown), expected in zip(places[1:-1], PLACES, strict=True):
        assert (path, place) == (PLACES[expected], expected)
        for name, text in zip(("gamma", "lambda"), shown, strict=True):
            mean = numbers["by_place"][name][place]["mean"]
            if path == "returns":
                assert _shown(text) == pytest.approx(mean, rel=0.01)
            else:
                assert (text, mean) == ("0 (closed)", 0.0)
    for name, text in zip(("gamma", "lambda"), places[-1][2:], strict=True):
        mean = numbers["heading"][name]["push"]["mean"]
        assert _shown(text) == pytest.approx(mean, rel=0.01)
        parts = [part["mean"] for part in numbers["by_place"][name].values()]
        assert sum(parts) == pytest.approx(mean, rel=1e-4)
        assert sum(numbers["push_per_batch"][name]) / BATCHES == pytest.approx(mean)

    assert times[0] == ["steps"] + [f"{s}, {p}" for s in "γλ" for p in list(PLACES)[:2]]
    assert [row[0] for row in times[1:]] == ["1 to 2", "3", "4", "5"]
    for column, (name, place) in enumerate(
        ((name, place) for name in ("gamma", "lambda") for place in list(PLACES)[:2]), start=1
    ):
        of_steps = [push["mean"] for push in numbers["by_time"][name][place]]
        assert len(of_steps) == STEPS
        expected = [of_steps[0] + of_steps[1], *of_steps[2:]]
        shown = [float(row[column]) for row in times[1:]]
        assert shown == pytest.approx(expected, rel=0.01)
        whole = numbers["by_place"][name][place]["mean"]
        assert sum(of_steps) == pytest.approx(whole, rel=1e-3, abs=1e-6 * max(map(abs, of_steps)))

    assert cosines[0] == ["two meta batches", "cosine of ∇_θ' J'", "cosine of dJ'/dx"]
    assert [row[0] for row in cosines[1:]] == PAIRS
    for row, entry in zip(cosines[1:], numbers["cosines"], strict=True):
        assert entry["pair"] == row[0]
        for text, kind in zip(
            row[1:], ("of_parameter_gradients", "of_meta_gradients"), strict=True
        ):
            mean, error = (entry[kind][key] for key in ("mean", "standard_error"))
            assert -1 <= mean <= 1
            assert text == f"{mean:+.2f} ± {error:.2f}"
            assert entry[kind]["batches"] == BATCHES - (row[0] == PAIRS[-1])
    excess = numbers["same_games_minus_other_games"]
    difference = f"{excess['mean']:+.2f} ± {excess['standard_error']:.2f}, t = {excess['t']:.1f}"
    assert f"(difference {difference})." in result.stdout
    assert (
        "In training none of τ' continues games of τ: 8 environments fill batches of 4 in turn."
    ) in lines

    assert meta_batches[0] == ["meta batch", "push on γ", "push on λ"]
    assert tuple(row[0] for row in meta_batches[1:]) == META_BATCHES
    for row in meta_batches[1:]:
        for name, text in zip(("gamma", "lambda"), row[1:], strict=True):
            mean = numbers["by_meta_batch"][row[0]][name]["mean"]
            assert _shown(text) == pytest.approx(mean, rel=0.01)
    assert meta_batches[-1][1:] == places[-1][2:], "training's τ' is of other games"

    assert [row[0] for row in sizes[1:]] == list(numbers["sizes"])
    for name, text in sizes[1:]:
        size = numbers["sizes"][name]
        assert text.split(" ± ")[0] == f"{size['mean']:.2e}"


def test_the_files_have_the_expected_content(explained):
    _, written = explained
    numbers = json.loads(written["explain.json"])
    about = {
        "environment": "meta_impala/Catch-v0",
        "frames_trained": 400,
        "checkpoint": "frames-400",
        "batches": BATCHES,
        "warmup": 1,
        "seed": 1,
        "learning_rate": pytest.approx(0.01 * 20 / 400),
        "meta_batch_of_training": "other games",
        "share_of_same_games": 0.0,
    }
    assert {name: numbers[name] for name in about} == about
    assert written["explain.png"].startswith(b"\x89PNG") and len(written["explain.png"]) > 20_000


# Mistakes, answered in one line, without TensorFlow.


def _refused(*arguments):
    return refused("meta_impala.explain", *arguments)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--batches=1", "--batches=1: must be a whole number in [2, 1000000]"),
        ("--warmup=-1", "--warmup=-1: must be a whole number in [0, 1000000]"),
        ("--seed=-1", "--seed=-1: must be a whole number in [0, "),
        ("--outdir=/dev/null/x", "--outdir=/dev/null/x: cannot be made"),
    ],
)
def test_a_bad_flag_is_refused_in_one_line(trained, argument, message):
    assert message in _refused(f"--logdir={trained}", argument)


@pytest.mark.parametrize("place", ["", "checkpoints", "new", "explain/new"])
def test_the_only_place_in_a_run_is_its_own(trained, place):
    before, outdir = files_of(trained), trained / place
    message = _refused(f"--logdir={trained}", f"--outdir={outdir}")
    assert f"--outdir={outdir}: is in the folder of a run ({trained})" in message
    assert files_of(trained) == before


def test_the_default_place_may_be_named(trained, monkeypatch):
    folder = RunFolder(trained)
    for outdir in ("", str(trained / "explain")):
        monkeypatch.setattr(explain, "FLAGS", types.SimpleNamespace(outdir=outdir))
        assert explain._outdir(types.SimpleNamespace(folder=folder)) == trained / "explain"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"meta_parameters": "none"}, "nothing is learned"),
        ({"eta_schedule": "random"}, "η is not learned (eta_schedule is random)"),
        ({"meta_objective": "bootstrapped"}, "the meta objective is bootstrapped"),
    ],
)
def test_a_run_without_a_meta_gradient_is_refused(trained, tmp_path, changes, message):
    config = json.loads((trained / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | changes), "utf-8")
    shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    before = files_of(tmp_path)
    assert message in _refused(f"--logdir={tmp_path}")
    assert message in refused("tools.precision_study", f"--logdir={tmp_path}")
    assert files_of(tmp_path) == before


def test_a_run_whose_checkpoints_are_damaged_gains_no_folder(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    for path in (run / "checkpoints").glob("*/state.data*"):
        path.write_bytes(b"\0" * path.stat().st_size)
    shutil.rmtree(run / "explain", ignore_errors=True)
    before = sorted(run.rglob("*"))
    result = run_module(
        "meta_impala.explain", f"--logdir={run}", "--nofigure", "--batches=2", "--warmup=0"
    )
    assert result.returncode == 2 and result.stderr.startswith("error: "), result.stderr
    assert sorted(run.rglob("*")) == before
