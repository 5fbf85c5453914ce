"""An mp4 of one full game.

The batched emulator cannot render, so the game is played in an environment that can, behind the
same interface: observations, and the resets of an LSTM, are those of training.
The file is encoded by the ffmpeg of the package `imageio-ffmpeg` (extra `video`).
"""

from __future__ import annotations

import importlib.util
import pathlib
import subprocess
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import numpy as np

from meta_impala.environments import PROTOCOLS, UnsupportedEnvironmentError, registry
from meta_impala.environments.base import BatchedEnvironment, Transition
from meta_impala.errors import UserError
from meta_impala.evaluation.pictures import Pictures
from meta_impala.storage.files import aside_of, put_in_place
from meta_impala.storage.results_folder import check_file

_INSTALL = "pip install 'meta_impala[video]'"
_ATARI_FRAMES_PER_SECOND = 60
_DEFAULT_FRAMES_PER_SECOND = 30.0
# A `render_fps` outside these is no speed that a game can be watched at.
_LEAST_FRAMES_PER_SECOND, _MOST_FRAMES_PER_SECOND = 0.1, 1000.0
# Smaller pictures are enlarged by a whole factor to about this height.
_HEIGHT = 420


def check_packages() -> None:
    """Checks that what recording needs is installed.

    Raises:
      UserError: naming what is missing.
    """
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        raise UserError(f"--record_video: needs imageio-ffmpeg, which is missing: {_INSTALL}")
    import imageio_ffmpeg

    try:
        imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError:  # a platform for which the package has no binary
        raise UserError("--record_video: needs ffmpeg, which is missing: install it") from None


def check_path(path: pathlib.Path) -> None:
    """Checks that a video can be written there.

    Raises:
      UserError: if not.
    """
    check_file(path, "record_video", ".mp4")


def _frames_per_second(render_fps: Any) -> float:
    """The speed that an environment's metadata name; the default where they name none."""
    try:
        speed = float(render_fps)
    except (TypeError, ValueError, OverflowError):
        return _DEFAULT_FRAMES_PER_SECOND
    is_speed = _LEAST_FRAMES_PER_SECOND <= speed <= _MOST_FRAMES_PER_SECOND  # NaN is not
    return speed if is_speed else _DEFAULT_FRAMES_PER_SECOND


class RecordedEnvironment(BatchedEnvironment):
    """One environment that hands every picture of a game to `on_picture`.

    Attributes:
      frames_per_second: at which the pictures, one per agent step, show the game at its own speed.
      on_picture: called with `[H, W, 3]` uint8.
    """

    def __init__(
        self,
        name: str,
        protocol: str,
        seed: int,
        environment_kwargs: Mapping[str, Any] | None = None,
        *,
        of_one_size: bool = True,
    ) -> None:
        """Makes the environment, and checks that it can be rendered.

        Args:
          name, protocol, environment_kwargs: as for `registry.make`.
          seed: fixes the game; the seed given to `reset` has no effect.
          of_one_size: whether all pictures must have one size, as in a video.

        Raises:
          UnsupportedEnvironmentError: it cannot be rendered; the message is one line.
        """
        spec = registry.resolve(name)
        self._env: Any = registry.make_render(
            name, protocol, seed, environment_kwargs=environment_kwargs
        )
        self._env_id = spec.id
        self._pictures = Pictures(spec.id, of_one_size=of_one_size)
        self._life_loss_is_terminal = bool(spec.game and PROTOCOLS[protocol].terminal_on_life_loss)
        self._lives = 0
        try:
            self._picture()
        except UnsupportedEnvironmentError:
            self._env.close()
            raise
        per_second = (
            _ATARI_FRAMES_PER_SECOND
            if spec.game
            else _frames_per_second(self._env.metadata.get("render_fps"))
        )
        self.frames_per_second = per_second / spec.action_repeat
        self.on_picture: Callable[[np.ndarray], None] = lambda picture: None
        super().__init__(
            num_envs=1,
            num_actions=int(self._env.action_space.n),
            observation_shape=tuple(self._env.observation_space.shape),
            observation_dtype=np.dtype(self._env.observation_space.dtype),
            action_repeat=spec.action_repeat,
        )

    def close(self) -> None:
        super().close()
        self._env.close()

    def action_meanings(self) -> list[str]:
        """Names of the actions, as Atari's environments give them; empty if there are none."""
        from meta_impala.environments import faults

        try:
            meanings = [str(name) for name in self._env.unwrapped.get_action_meanings()]
        except BaseException as error:  # noqa: BLE001 - there is no such method, or anything else
            if faults.is_ctrl_c(error):
                raise
            return []
        return meanings if len(meanings) == self.num_actions else []

    def _picture(self) -> np.ndarray:
        from meta_impala.environments import faults

        try:
            rendered = self._env.render()
        except BaseException as error:  # noqa: BLE001 - an environment may raise anything
            if faults.is_ctrl_c(error):
                raise
            raise UnsupportedEnvironmentError(
                f"{self._env_id} cannot be rendered: {faults.describe(error)}"
            ) from error
        return self._pictures.rgb(rendered)

    def _restart(self, seed: int) -> np.ndarray:
        observation = self._begin_game()
        self.on_picture(self._picture())
        return observation

    def _begin_game(self) -> np.ndarray:
        observation, info = self._env.reset()
        self._lives = info.get("lives", 0)
        return np.asarray(observation)[np.newaxis]

    def _advance(self, actions: np.ndarray) -> Transition:
        observation, reward, game_over, truncated, info = self._env.step(int(actions[0]))
        self.on_picture(self._picture())
        observation = np.asarray(observation)[np.newaxis]
        ends = bool(game_over or truncated)
        terminated, final_observations = bool(game_over), None
        if ends:
            final_observations, observation = observation, self._begin_game()
        else:
            # As in `environments.atari`.
            lives = info.get("lives", 0)
            terminated = self._life_loss_is_terminal and lives < self._lives
            self._lives = lives
        return Transition(
            observations=observation,
            rewards=np.array([reward], np.float64),
            terminations=np.array([terminated]),
            truncations=np.array([bool(truncated)]),
            final_observations=final_observations,
            episode_ends=np.array([ends]),
        )


class VideoFile:
    """An mp4 (H.264) that appears as a whole when the `with` block ends without an error."""

    def __init__(self, path: pathlib.Path, frames_per_second: float) -> None:
        self._path = path
        self._frames_per_second = frames_per_second
        aside = aside_of(path)
        self._aside = aside.with_name(f"{aside.name}.mp4")  # ffmpeg goes by the ending
        self._ffmpeg: subprocess.Popen[bytes] | None = None

    def add(self, picture: np.ndarray) -> None:
        """Appends one picture, `[H, W, 3]` uint8; all of one size.

        Raises:
          UserError: if ffmpeg fails.
        """
        factor = max(1, _HEIGHT // picture.shape[0])
        picture = picture.repeat(factor, axis=0).repeat(factor, axis=1)
        # H.264 stores colours at half the resolution, so sides must be even.
        odd = [(0, side % 2) for side in picture.shape[:2]]
        picture = np.ascontiguousarray(np.pad(picture, [*odd, (0, 0)], mode="edge"))
        if self._ffmpeg is None:
            self._ffmpeg = self._start(picture.shape[1], picture.shape[0])
        assert self._ffmpeg.stdin is not None
        try:
            self._ffmpeg.stdin.write(picture.data)
        except OSError:
            self._finish()
            raise

    def _start(self, width: int, height: int) -> subprocess.Popen[bytes]:
        import imageio_ffmpeg

        self._aside.unlink(missing_ok=True)  # ffmpeg would follow a link
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
        source += ["-r", f"{self._frames_per_second:g}", "-i", "-"]
        target = ["-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p"]
        target += ["-movflags", "+faststart", str(self._aside)]
        return subprocess.Popen(
            [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *source, *target],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            process_group=0,  # Ctrl-C is for this process to handle
        )

    def _finish(self) -> None:
        """Waits for ffmpeg.

        Raises:
          UserError: if it failed.
        """
        assert self._ffmpeg is not None
        _, message = self._ffmpeg.communicate()
        if self._ffmpeg.returncode:
            lines = message.decode(errors="replace").strip().splitlines() or ["ffmpeg failed"]
            raise UserError(f"{self._path}: cannot be written ({lines[-1]})")

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._ffmpeg is not None:
                self._finish()
                put_in_place(self._aside, self._path)
        finally:
            if self._ffmpeg is not None and self._ffmpeg.poll() is None:
                self._ffmpeg.kill()
                self._ffmpeg.wait()
            self._aside.unlink(missing_ok=True)
