"""The pictures and excerpts of the README are made from real runs (command)."""

import pytest
from PIL import Image
from support.command_helpers import run_tool


@pytest.mark.slow
def test_pictures_and_excerpts_are_made_from_real_runs(tmp_path):
    done = run_tool(
        "make_readme_pictures", f"--out={tmp_path}", "--total_frames=40000", "--seconds=1"
    )
    assert done.returncode == 0, done.stderr
    assert "$ meta-impala train --preset=catch" in (tmp_path / "train.txt").read_text("utf-8")
    with Image.open(tmp_path / "watch.png") as picture:
        assert picture.width > 400
    for path in tmp_path.iterdir():
        assert b"/tmp" not in path.read_bytes() or path.suffix == ".png"
