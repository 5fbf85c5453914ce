"""The environment behind a video, and the file: equivalence, fault."""

import re
import subprocess
import sys

import numpy as np
import pytest

from meta_impala.environments import UnsupportedEnvironmentError, registry
from meta_impala.errors import UserError
from meta_impala.evaluation import video
from meta_impala.storage import files


def _probe(path):
    """What ffmpeg says of a file: (codec, width, height, frames per second, pictures)."""
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    text = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "null", "-"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    stream = re.search(r"Video: (\w+).*?, (\d+)x(\d+).*?, ([\d.]+) fps", text)
    pictures = re.findall(r"frame= *(\d+)", text)[-1]
    return stream[1], int(stream[2]), int(stream[3]), float(stream[4]), int(pictures)


def test_catch_is_the_game_of_the_batch_and_every_board_is_shown():
    recorded = video.RecordedEnvironment("Catch", "impala", seed=4)
    single = registry.make("Catch", 1, "impala")
    shown = []
    recorded.on_picture = shown.append
    recorded.reset(seed=0)
    single.reset(seed=0)
    for _ in range(9):
        step, expected = recorded.step(np.array([1])), single.step(np.array([1]))
        assert step.observations.shape == expected.observations.shape
        assert step.observations.dtype == expected.observations.dtype
        np.testing.assert_array_equal(step.terminations, expected.terminations)
    # Ten boards from the first to the landing, none of the next game.
    assert step.episode_ends[0] and step.episode_frames[0] == 9
    assert len(shown) == 10
    assert step.final_observations[0].any() and step.observations[0, 0].any()
    assert recorded.frames_per_second == 10


def test_a_lost_life_is_terminal_and_the_game_continues():
    ends, terminals = {}, {}
    for protocol in ("impala", "machado"):
        environment = video.RecordedEnvironment("Breakout", protocol, seed=0)
        assert environment.frames_per_second == 15
        environment.reset(seed=0)
        generator = np.random.default_rng(0)
        ends[protocol] = terminals[protocol] = 0
        while not ends[protocol]:
            step = environment.step(generator.integers(0, environment.num_actions, 1))
            ends[protocol] += int(step.episode_ends[0])
            terminals[protocol] += int(step.terminations[0])
        environment.close()
    assert ends == {"impala": 1, "machado": 1}
    # Five lives; under machado only the game's end.
    assert terminals == {"impala": 5, "machado": 1}


def test_the_file_holds_every_picture_at_its_speed(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "video.mp4"
    with video.VideoFile(path, 15) as file:
        for value in range(7):
            # 101 × 33 pictures: enlarged four times, so even.
            file.add(np.full([101, 33, 3], 30 * value, np.uint8))
        assert not path.exists()
    assert _probe(path) == ("h264", 132, 404, 15.0, 7)
    assert [entry.name for entry in tmp_path.iterdir()] == ["video.mp4"]


def test_odd_pictures_too_large_to_enlarge_are_made_even(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "video.mp4"
    with video.VideoFile(path, 30) as file:
        file.add(np.zeros([421, 333, 3], np.uint8))
    assert _probe(path)[1:3] == (334, 422)


def test_an_exception_leaves_no_file_and_the_old_one_as_it_was(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "video.mp4"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), video.VideoFile(path, 15) as file:
        generator = np.random.default_rng(0)
        while len(list(tmp_path.iterdir())) == 1:  # ffmpeg opens its file after some pictures
            file.add(generator.integers(0, 256, [64, 64, 3], np.uint8))
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["video.mp4"]


def test_a_link_aside_is_not_followed_and_two_at_a_time_write_two_files(tmp_path, monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    outside, path = tmp_path / "outside", tmp_path / "run" / "video.mp4"
    outside.write_bytes(b"precious")
    path.parent.mkdir()
    asides = []
    for process in (1000, 1001):
        monkeypatch.setattr(files.os, "getpid", lambda process=process: process)
        file = video.VideoFile(path, 15)
        asides.append(file._aside)
        file._aside.symlink_to(outside)
        with file:
            file.add(np.zeros([64, 64, 3], np.uint8))
        assert outside.read_bytes() == b"precious"
        assert not path.is_symlink() and _probe(path)[0] == "h264"
    assert len(set(asides)) == 2


def test_where_ffmpeg_cannot_write_the_refusal_is_one_line(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "gone" / "video.mp4"
    with pytest.raises(UserError, match="cannot be written") as error:  # noqa: SIM117
        with video.VideoFile(path, 15) as file:
            file.add(np.zeros([64, 64, 3], np.uint8))
    assert "\n" not in str(error.value)


def test_a_missing_package_is_named(monkeypatch):
    # None in sys.modules makes the import fail, as if the package were not there.
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UserError, match=r"imageio-ffmpeg.*pip install 'meta_impala\[video\]'"):
        video.check_packages()


def test_an_environment_that_cannot_be_rendered_is_refused(monkeypatch):
    class Blind:
        def render(self):
            return "a picture in words"

        def close(self):
            pass

    monkeypatch.setattr(registry, "make_render", lambda *_, **__: Blind())
    with pytest.raises(UnsupportedEnvironmentError, match="cannot be recorded"):
        video.RecordedEnvironment("Catch", "impala", seed=0)


def test_paths_that_cannot_hold_a_video_are_refused(tmp_path):
    video.check_path(tmp_path / "a.mp4")
    with pytest.raises(UserError, match="must end in .mp4"):
        video.check_path(tmp_path / "a.gif")
    with pytest.raises(UserError, match="folder that exists"):
        video.check_path(tmp_path / "no" / "a.mp4")
