"""The form in which an unroll is sent between processes: each frame once, compressed, lossless.

An Atari observation is a stack of the last four frames, so consecutive ones share three. Where that
holds, only the newest frame is sent, as its difference from the frame before; elsewhere (after a
reset, when the stack is padded with zeros) the whole stack is. This is checked for every stack: any
observations are restored exactly.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np

from meta_impala.actors.trajectory import Unroll

# Higher levels gain about 5 % and double the cost.
_LEVEL = 1


class PackedUnroll(NamedTuple):
    """An unroll in the form to send.

    Attributes:
      unroll: with None in place of the observations.
      observations: packed if they are uint8, else unchanged.
      shape: of the observations, `[T+1, N, ...]`.
      shifted: `[T, N]` bool, whether a stack is that of the step before, shifted by one frame; None
        if the observations are not stacks.
    """

    unroll: Unroll
    observations: bytes | np.ndarray
    shape: tuple[int, ...]
    shifted: np.ndarray | None

    @property
    def nbytes(self) -> int:
        """Bytes of all its arrays."""
        arrays = [field for field in self.unroll if field is not None]
        if self.shifted is not None:
            arrays.append(self.shifted)
        observations = self.observations
        size = len(observations) if isinstance(observations, bytes) else observations.nbytes
        return size + sum(array.nbytes for array in arrays)


def pack(unroll: Unroll) -> PackedUnroll:
    """The form to send; images (uint8) are compressed, other observations are unchanged."""
    stacks = unroll.observations
    rest = unroll._replace(observations=None)
    if stacks.dtype != np.uint8:
        return PackedUnroll(rest, stacks, stacks.shape, None)
    if stacks.ndim != 5:
        return PackedUnroll(rest, _compressed(stacks), stacks.shape, None)
    earlier, later = stacks[:-1], stacks[1:]
    shifted = (later[:, :, :-1] == earlier[:, :, 1:]).all(axis=(2, 3, 4))
    newest = (later[:, :, -1] - earlier[:, :, -1])[shifted]  # modulo 256
    packed = _compressed(_differences(stacks[0]), newest, _differences(later[~shifted]))
    return PackedUnroll(rest, packed, stacks.shape, shifted)


def unpack(packed: PackedUnroll) -> Unroll:
    """The original unroll, to the bit."""
    data = packed.observations
    if isinstance(data, np.ndarray):
        return packed.unroll._replace(observations=data)
    content = np.frombuffer(zlib.decompress(data), np.uint8)
    if packed.shifted is None:
        return packed.unroll._replace(observations=content.reshape(packed.shape).copy())
    stacks = np.empty(packed.shape, np.uint8)
    shifted, stack, frame = packed.shifted, packed.shape[2:], packed.shape[3:]
    first_size = stacks[0].size
    newest_size = int(shifted.sum()) * int(np.prod(frame))
    first, newest, whole = np.split(content, [first_size, first_size + newest_size])
    _sums(first.reshape([-1, *stack]), out=stacks[0])
    new_stacks = np.empty([int((~shifted).sum()), *stack], np.uint8)
    _sums(whole.reshape([-1, *stack]), out=new_stacks)
    stacks[1:][~shifted] = new_stacks
    newest = newest.reshape([-1, *frame])
    start = 0
    for row, moved in enumerate(shifted):
        before, after = stacks[row], stacks[row + 1]
        stop = start + int(moved.sum())
        after[moved, :-1] = before[moved, 1:]
        after[moved, -1] = before[moved, -1] + newest[start:stop]
        start = stop
    return packed.unroll._replace(observations=stacks)


def _compressed(*arrays: np.ndarray) -> bytes:
    compressor = zlib.compressobj(_LEVEL)
    parts = [compressor.compress(np.ascontiguousarray(array).data) for array in arrays]
    return b"".join([*parts, compressor.flush()])


def _differences(stacks: np.ndarray) -> np.ndarray:
    """Each frame of `[K, stack, ...]` less the one before it, modulo 256."""
    differences = stacks.copy()
    differences[:, 1:] -= stacks[:, :-1]
    return differences


def _sums(differences: np.ndarray, out: np.ndarray) -> None:
    """Undoes `_differences`."""
    out[:, 0] = differences[:, 0]
    for frame in range(1, differences.shape[1]):
        # np.cumsum takes several times as long.
        np.add(out[:, frame - 1], differences[:, frame], out=out[:, frame])
