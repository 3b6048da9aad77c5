"""How a picture was made, as numbers: noise, sharpness and resampling; compression; grey levels.

All is measured on the file's own pixels, in tiles beside the lungs where lungs are known, and relative to the
tiles' contrast, so that neither disease nor exposure is meant to show. No kind of processing is looked for by
name: a spectrum, a noise floor and a histogram change with nearly all of them.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import ndimage
from scipy.fft import dct

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
        "texture": np.concatenate([_spectrum(values), _noise(values), _periods(image)]),
        "compression": _grid(values, image),
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
    tops, lefts = (one.ravel() for one in np.meshgrid(rows, columns, indexing="ij"))
    tiles = np.stack([image[t : t + size, s : s + size] for t, s in zip(tops, lefts, strict=True)])
    inner = tiles.reshape(len(tiles), -1)
    good = (inner.std(axis=1) > 1) & (((inner > 0) & (inner < 255)).mean(axis=1) > 0.8)
    if not good.any():
        return None
    share = np.zeros(len(tiles))
    if lungs is not None and lungs.any():
        steps = (np.arange(8) + 0.5) / 8 * size
        for number, (top, left) in enumerate(zip(tops, lefts, strict=True)):
            y = ((top + steps) * lungs.shape[0] / height).astype(int)
            x = ((left + steps) * lungs.shape[1] / width).astype(int)
            share[number] = (lungs[np.ix_(y, x)] > 0).mean()
    kept = np.flatnonzero(good)
    kept = kept[np.argsort(share[kept], kind="stable")]
    return tiles[kept[: max(8, int((share[kept] <= 0.1).sum()))]][:_TILES]


def _spectrum(values: np.ndarray) -> np.ndarray:
    """Shape of the power spectrum: by frequency all round, then across and down; median over tiles, float
    (2 × bins,).
    """
    size = values.shape[1]
    window, ring, across, down = _rings(size)
    centred = (values - values.mean(axis=(1, 2), keepdims=True)) * window
    power = np.abs(np.fft.rfft2(centred)).reshape(len(values), -1) ** 2 + 1e-2

    def logs(groups: np.ndarray) -> np.ndarray:
        sums = np.stack([power[:, groups == n].mean(axis=1) for n in range(groups.max() + 1)], axis=1)
        return np.log(sums)

    round_, wide, high = logs(ring), logs(across), logs(down)
    level = round_[:, :3].mean(axis=1, keepdims=True)
    return np.concatenate([np.median(one - level, axis=0) for one in (round_, wide, high)])


@cache
def _rings(size: int) -> tuple[np.ndarray, ...]:
    """A window; and the bin of each frequency, 0.06 to ½ a pixel: all round, across and down; -1: none."""
    hann = np.hanning(size)
    fy, fx = np.abs(np.fft.fftfreq(size))[:, None], np.fft.rfftfreq(size)[None, :]

    def binned(frequency: np.ndarray, count: int) -> np.ndarray:
        found = np.searchsorted(np.linspace(0.06, 0.5, count + 1), frequency, side="right") - 1
        return np.minimum(found, count - 1)

    narrow = 1.5 / size
    across = np.where(fy <= narrow, binned(fx, _BINS // 2), -1)
    down = np.where(fx <= narrow, binned(fy, _BINS // 2), -1)
    ring = binned(np.hypot(fy, fx), _BINS)
    return np.outer(hann, hann), ring.ravel(), across.ravel(), down.ravel()


def _noise(values: np.ndarray) -> np.ndarray:
    """Noise floor relative to contrast, its tails, colour and gaps: float, (14,).

    The residual is that of Immerkær's operator (1996, doi:10.1006/cviu.1996.0060), which is blind to slopes.
    """
    kernel = np.array([[[1, -2, 1], [-2, 4, -2], [1, -2, 1]]], np.float32)
    r = ndimage.convolve(values, kernel)[:, 1:-1, 1:-1]
    contrast = max(float(np.subtract(*np.percentile(values[:, ::2, ::2], (95, 5)))), 8.0)
    sigma = np.median(np.abs(r), axis=(1, 2)) / 6 + r.std(axis=(1, 2)) / 12 + 0.02
    levels = np.log(np.quantile(sigma, (0.05, 0.25, 0.5, 0.75)) / contrast)
    flat = np.median((r == 0).mean(axis=(1, 2)))
    spread = r.std(axis=(1, 2)) + 1e-6
    tails = [
        np.median(np.log(np.quantile(np.abs(r), q, axis=(1, 2)) / spread + 1e-3)) for q in (0.5, 0.99, 1)
    ]
    power = (r**2).mean(axis=(1, 2)) + 1e-6
    shifts = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0))
    colour = [
        np.median((r[:, y:, x:] * r[:, : r.shape[1] - y, : r.shape[2] - x]).mean(axis=(1, 2)) / power)
        for y, x in shifts
    ]
    bright = values.mean(axis=(1, 2))
    slope = np.corrcoef(bright, np.log(sigma))[0, 1] if len(bright) > 2 and bright.std() > 1 else 0.0
    return np.array([*levels, flat, *tails, *colour, np.nan_to_num(slope)])


def _periods(image: np.ndarray) -> np.ndarray:
    """Traces of interpolation: how far the mean second difference of rows and of columns is periodic, float
    (2 × periods,) (Gallagher 2005, doi:10.1109/CRV.2005.33).
    """
    found = []
    small = image[:1024, :1024].astype(np.int16)
    for turned in (small, small.T):
        second = np.abs(2 * turned[:, 1:-1] - turned[:, :-2] - turned[:, 2:]).mean(axis=0)
        level = second / (ndimage.uniform_filter1d(second, 15) + 0.1)
        size = np.abs(np.fft.rfft((level - level.mean()) * np.hanning(len(level))))
        edges = np.linspace(0.05, 0.501, _PERIODS + 1) * len(level)
        usual = np.median(size) + 1e-6
        bins = np.searchsorted(edges, np.arange(len(size)), side="right") - 1
        found += [np.log(size[bins == n].max(initial=usual) / usual) for n in range(_PERIODS)]
    return np.array(found)


def _grid(values: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Traces of JPEG: what 8 × 8 cosine coefficients have on its grid and not between, and steps at its
    lines: float, (18,). A file saved again as PNG keeps them.
    """
    blocks = [_cosines(values), _cosines(values[:, 4:-4, 4:-4])]
    band = _zigzag()

    def usual(measure: np.ndarray) -> np.ndarray:
        """By band, of the block in the middle: a letter is in few blocks."""
        return np.array([np.median(measure[..., band == n].mean(axis=-1)) for n in range(8)])

    energy, none = (
        [np.log(usual(measure) + 0.02) for measure in measures]
        for measures in (
            [one**2 for one in blocks],
            [(np.abs(one) < 0.5).astype(np.float32) for one in blocks],
        )
    )
    steps = []
    for turned in (image[:1024, :1024], image[:1024, :1024].T):
        jump = np.abs(np.diff(turned.astype(np.int16), axis=1))
        jump = np.minimum(jump, 4).mean(axis=0)[: (turned.shape[1] - 1) // 8 * 8].reshape(-1, 8).mean(axis=0)
        # Enlarging by two or four leaves steps of that period: phase 3 has them too.
        steps.append(np.log((jump[7] + 0.05) / (jump[3] + 0.05)))
    return np.array([*np.subtract(*energy), *np.subtract(*none), *steps])


def _cosines(values: np.ndarray) -> np.ndarray:
    """Of each 8 × 8 block its cosine coefficients: float32, (T, n, n, 8, 8)."""
    count = values.shape[1] // 8
    blocks = values.reshape(len(values), count, 8, count, 8).transpose(0, 1, 3, 2, 4)
    return np.einsum("ij,tabjk,lk->tabil", _DCT, blocks, _DCT, optimize=True)


_DCT = dct(np.eye(8), axis=0, norm="ortho").astype(np.float32)


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
