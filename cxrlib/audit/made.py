"""How a picture was made, as numbers: noise, sharpness and resampling; compression; grey levels.

All is measured on the file's own pixels, in tiles beside the lungs where lungs are known, and relative to the
tiles' contrast, so that neither disease nor exposure is meant to show. No kind of processing is looked for by
name: a spectrum, a noise floor and a histogram change with nearly all of them.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import ndimage
from scipy.fft import dct, rfft, rfft2

from cxrlib.io.pixels import quantiles

MADE = ("texture", "compression", "grey_levels")

_TILES = 64  # that are looked at, at most
_BINS = 12
_PERIODS = 12


def made(image: np.ndarray, lungs: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """What the pixels say of noise and sharpness, of JPEG's grid and of the greys' spacing.

    - ``image``: uint8, (H, W), at the file's own resolution.
    - ``lungs``: 0/1, (h, w), of the same field at any resolution; tiles with the least lung are chosen. None:
      all tiles.
    - Returns: probe of :data:`MADE` -> float32, (D,); NaN where the image has no tile that is not flat.
    """
    tiles = _tiles(image, lungs)
    if tiles is None:
        return {"texture": np.full(2 * _BINS + 14 + 2 * _PERIODS, np.nan, np.float32),
                "compression": np.full(18, np.nan, np.float32),
                "grey_levels": np.full(9, np.nan, np.float32)}  # fmt: skip
    values = tiles.astype(np.float32)
    found = {
        "texture": np.concatenate([_spectrum(values), _noise(tiles, values), _periods(image)]),
        "compression": _grid(tiles, image),
        "grey_levels": _levels(tiles),
    }
    return {name: part.astype(np.float32) for name, part in found.items()}


def _tiles(image: np.ndarray, lungs: np.ndarray | None) -> np.ndarray | None:
    """Tiles on JPEG's grid that are not flat, those with the least lung: uint8, (T, S, S)."""
    height, width = image.shape
    size = 64 if min(height, width) >= 512 else 32
    if min(height, width) < size:
        return None
    rows, columns = (
        np.unique(np.linspace(0, side // 8 - size // 8, min(8, side // size)).round().astype(int)) * 8
        for side in (height, width)
    )
    tiles = np.stack([image[top : top + size, left : left + size] for top in rows for left in columns])
    inner = tiles.reshape(len(tiles), -1)
    clear = np.count_nonzero(inner - np.uint8(1) < 254, axis=1) > 0.8 * inner.shape[1]  # 0 becomes 255
    good = clear & (_spread(inner.astype(np.float32)) > 1)
    if not good.any():
        return None
    share = np.zeros(len(tiles))
    if lungs is not None and lungs.any():
        steps = (np.arange(8) + 0.5) / 8 * size
        y, x = (
            ((starts[:, None] + steps) * there / side).astype(int)
            for starts, there, side in zip((rows, columns), lungs.shape, image.shape, strict=True)
        )
        share = (lungs[y[:, None, :, None], x[None, :, None, :]] > 0).mean(axis=(2, 3)).ravel()
    kept = np.flatnonzero(good)
    kept = kept[np.argsort(share[kept], kind="stable")]
    return tiles[kept[: max(8, int((share[kept] <= 0.1).sum()))]][:_TILES]


def _spread(values: np.ndarray) -> np.ndarray:
    """The standard deviation of each row of float32, (N, D), by way of BLAS."""
    centred = values - values.mean(axis=1, keepdims=True)
    return np.sqrt(np.einsum("ij,ij->i", centred, centred) / values.shape[1])


def _spectrum(values: np.ndarray) -> np.ndarray:
    """Shape of the power spectrum: by frequency all round, then across and down; median over tiles, float
    (2 × bins,).
    """
    window, bins = _rings(values.shape[1])
    there = rfft2((values - values.mean(axis=(1, 2), keepdims=True)) * window)
    power = (there.real**2 + there.imag**2).reshape(len(values), -1) + np.float32(1e-2)
    logs = np.log(power @ bins)
    level = logs[:, :3].mean(axis=1, keepdims=True)
    return np.median(logs - level, axis=0)


@cache
def _rings(size: int) -> tuple[np.ndarray, np.ndarray]:
    """A window; and the share of each frequency in the mean of each bin, from 0.06 to ½ a pixel: all round,
    across and down; float32, (frequencies, 2 × bins).
    """
    hann = np.hanning(size)
    fy, fx = np.abs(np.fft.fftfreq(size))[:, None], np.fft.rfftfreq(size)[None, :]

    def binned(frequency: np.ndarray, count: int) -> np.ndarray:
        found = np.searchsorted(np.linspace(0.06, 0.5, count + 1), frequency, side="right") - 1
        return np.minimum(found, count - 1)

    narrow = 1.5 / size
    across = np.where(fy <= narrow, binned(fx, _BINS // 2), -1)
    down = np.where(fx <= narrow, binned(fy, _BINS // 2), -1)
    ring = binned(np.hypot(fy, fx), _BINS)
    groups = [(one.ravel()[:, None] == np.arange(one.max() + 1)) for one in (ring, across, down)]
    shares = np.concatenate([one / one.sum(axis=0) for one in groups], axis=1)
    return np.outer(hann, hann).astype(np.float32), shares.astype(np.float32)


def _noise(tiles: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Noise floor relative to contrast, its tails, colour and gaps: float, (14,).

    The residual is that of Immerkær's operator (1996, doi:10.1006/cviu.1996.0060), which is blind to slopes.
    """
    whole = _second(_second(tiles.astype(np.int16), 1), 2)
    r, sizes = whole.astype(np.float32), np.abs(whole).reshape(len(whole), -1)
    many, top = sizes.shape[1], int(sizes.max()) + 1
    each = np.bincount((sizes + np.arange(len(sizes))[:, None] * top).ravel(), minlength=top * len(sizes))
    half, most, largest = quantiles(each.reshape(-1, top), (0.5, 0.99, 1))
    greys = np.bincount(tiles[:, ::2, ::2].ravel(), minlength=256)
    contrast = max(float(np.subtract(*quantiles(greys[None], (0.95, 0.05))[:, 0])), 8.0)
    deviation = _spread(r.reshape(len(r), -1))
    sigma = half / 6 + deviation / 12 + 0.02
    levels = np.log(np.quantile(sigma, (0.05, 0.25, 0.5, 0.75)) / contrast)
    tails = np.log(np.stack([half, most, largest]) / (deviation + 1e-6) + 1e-3)
    power = np.einsum("tij,tij->t", r, r) / many + 1e-6
    shifts = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0))
    colour = []
    for y, x in shifts:
        first, second = r[:, y:, x:], r[:, : r.shape[1] - y, : r.shape[2] - x]
        colour += [np.einsum("tij,tij->t", first, second) / first[0].size / power]
    usual = np.median([each[::top] / many, *tails, *colour], axis=1)
    bright = values.mean(axis=(1, 2))
    slope = np.corrcoef(bright, np.log(sigma))[0, 1] if len(bright) > 2 and bright.std() > 1 else 0.0
    return np.array([*levels, *usual, np.nan_to_num(slope)])


def _second(values: np.ndarray, axis: int) -> np.ndarray:
    """Second differences of int16 along an axis (before + after - 2 × middle)."""
    before, middle, after = (
        values[(slice(None),) * axis + (slice(start, values.shape[axis] - 2 + start),)] for start in (0, 1, 2)
    )
    found = before + after
    found -= middle
    found -= middle
    return found


def _bends(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean size of second differences along rows, one a column, and along columns, one a row: float64."""
    height, width = image.shape
    along, down = np.zeros(width - 2, np.int64), np.zeros(height - 2)
    for top in range(0, height, 64):  # so many that the processor's cache holds them, and int16 their sum
        part = image[top : top + 66].astype(np.int16)
        along += np.abs(_second(part[:64], 1)).sum(axis=0, dtype=np.int16)
        if len(part) > 2:
            # The product with ones is a sum, and exact below 2**24.
            size = np.abs(_second(part, 0)).astype(np.float32) @ np.ones(width, np.float32)
            down[top : top + 64] = size / width
    return along / height, down


def _periods(image: np.ndarray) -> np.ndarray:
    """Traces of interpolation: how far the mean second difference of rows and of columns is periodic, float
    (2 × periods,) (Gallagher 2005, doi:10.1109/CRV.2005.33).
    """
    found = []
    for second in _bends(image[:1024, :1024]):
        level = second / (ndimage.uniform_filter1d(second, 15) + 0.1)
        size = np.abs(rfft((level - level.mean()) * np.hanning(len(level))))
        edges = np.linspace(0.05, 0.501, _PERIODS + 1) * len(level)
        usual = np.median(size) + 1e-6
        bins = np.split(size, np.searchsorted(np.arange(len(size)), edges, side="left"))[1:-1]
        found += [np.log(one.max(initial=usual) / usual) for one in bins]
    return np.array(found)


def _grid(tiles: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Traces of JPEG: what 8 × 8 cosine coefficients have on its grid and not between, and steps at its
    lines: float, (18,). A file saved again as PNG keeps them.
    """
    band = _zigzag().ravel()
    shares = (band[:, None] == np.arange(8)).astype(np.float32)
    shares /= shares.sum(axis=0)
    energy, none = [], []
    for part in (tiles, tiles[:, 4:-4, 4:-4]):
        found = _cosines(part)
        # By band, of the block in the middle: a letter is in few blocks.
        energy.append(np.log(np.median((found**2 @ shares).T, axis=1) + 0.02))
        none.append(np.log(np.median(((np.abs(found) < 0.499).astype(np.float32) @ shares).T, axis=1) + 0.02))
    steps, part = [], image[:1024, :1024]
    for axis in (1, 0):
        last, before = (part.shape[axis] - 1) // 8 * 8, (slice(None),) * axis
        # Enlarging by two or four leaves steps of that period: phase 3 has them too.
        jumps = [
            _step(part[*before, phase:last:8], part[*before, phase + 1 : last + 1 : 8]) for phase in (7, 3)
        ]
        steps.append(np.log((jumps[0] + 0.05) / (jumps[1] + 0.05)))
    return np.array([*np.subtract(*energy), *np.subtract(*none), *steps])


def _step(before: np.ndarray, after: np.ndarray) -> float:
    """The mean difference of uint8, of which more than 4 count as 4."""
    before, after = np.ascontiguousarray(before), np.ascontiguousarray(after)
    jump = np.minimum(np.maximum(before, after) - np.minimum(before, after), 4)
    return float(jump.sum(dtype=np.int64)) / jump.size


def _cosines(tiles: np.ndarray) -> np.ndarray:
    """Of each 8 × 8 block of uint8 its cosine coefficients: float32, (blocks, 64)."""
    rows = np.ascontiguousarray(tiles).view(np.uint64)  # eight pixels
    blocks = rows.reshape(len(tiles), -1, 8, rows.shape[2]).swapaxes(2, 3).copy().view(np.uint8)
    return blocks.reshape(-1, 64).astype(np.float32) @ _DCT


_DCT = np.kron(*[dct(np.eye(8), axis=0, norm="ortho").T] * 2).astype(np.float32)


@cache
def _zigzag() -> np.ndarray:
    """The band of each coefficient, from 0 to 7; -1 for the mean and the lowest: int, (8, 8)."""
    order = np.add.outer(np.arange(8), np.arange(8))
    return np.where(order < 2, -1, np.minimum((order - 2) * 8 // 11, 7))


def _levels(tiles: np.ndarray) -> np.ndarray:
    """Gaps, combs and clipping of the greys: float, (9,)."""
    counts = np.bincount(tiles.ravel(), minlength=256).astype(float)
    total = counts.sum()
    low, high = np.searchsorted(np.cumsum(counts) / total, (0.02, 0.98))
    part = counts[low : high + 1] if high - low >= 16 else counts[max(0, low - 8) : low + 9]
    smooth = ndimage.uniform_filter1d(part, 5, mode="nearest") + 1e-6
    off = part / smooth - 1
    third = np.array([part[n::3].sum() for n in range(3)]) / part.sum()
    there = np.flatnonzero(counts)
    return np.array([
        (part == 0).mean(), np.log(np.abs(off).mean() + 0.02), np.log(off.max() + 0.05),
        np.log((part < 0.5 * smooth).mean() + 0.01), abs(part[::2].sum() / part.sum() - 0.5),
        third.max() - 1 / 3, len(there) / max(high - low, 1), *np.log10(counts[there[[0, -1]]] / total),
    ])  # fmt: skip
