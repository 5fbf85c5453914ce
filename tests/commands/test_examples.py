"""The examples of tools/ do what they say, and the notebook runs from top to bottom (learning)."""

import importlib
import json
import pathlib

import pytest
from support.command_helpers import ROOT

from meta_impala.algorithm import losses

EXAMPLES = sorted(path.stem for path in (ROOT / "tools").glob("example_*.py"))
NOTEBOOK = ROOT / "tools/catch.ipynb"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    monkeypatch.setattr(losses, "TERMS", dict(losses.TERMS))
    monkeypatch.setattr(losses, "OWN_META_WEIGHTS", {})
    return importlib.import_module


def test_every_example_is_tested_and_short():
    files = pathlib.Path(__file__).parent.glob("test_example*.py")
    tested = "".join(path.read_text("utf-8") for path in files)
    assert EXAMPLES
    for name in EXAMPLES:
        assert f'example("{name}")' in tested or f'"tools/{name}.py"' in tested
        text = (ROOT / f"tools/{name}.py").read_text("utf-8")
        assert text.count("\n") < 80 and f"\n    python tools/{name}.py" in text


def test_the_environment_example_trains(example, tmp_path):
    assert example("example_own_environment").main(str(tmp_path)) > 0.9


def test_the_network_example_trains(example, tmp_path):
    assert example("example_own_network").main(str(tmp_path)) > 0.0
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["network"] == "example_own_network:RowByRow"


def test_the_meta_objective_example_trains(example, tmp_path):
    module = example("example_own_meta_term")
    eta = module.main(str(tmp_path))
    assert losses.TERMS["tsallis"] is module.tsallis_term
    assert all(
        0.0 < value < 1.0 and value != pytest.approx(0.99, abs=1e-7) for value in eta.values()
    )


def test_the_python_entry_example_runs(example, tmp_path):
    assert example("example_python_entry").main(str(tmp_path)) > -0.6
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["frames"] == 40_000


def test_the_notebook_is_stored_without_outputs_and_compiles():
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 4
    for cell in cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None
    compile("\n".join(code), "catch.ipynb", "exec")


@pytest.mark.slow
def test_the_notebook_runs_and_gamma_moves(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    text = "".join(output.get("text", "") for output in outputs)
    assert float(text.split("mean return ")[1].split()[0]) > 0.5
    gammas = [float(part.split()[0]) for part in text.split("γ ")[1:]]
    assert max(gammas) - min(gammas) > 0.05
