"""The consistent pipeline: bone bright, borders off, markers out, the same greys, one size, nothing squashed.

The order is what makes it consistent. Lines without content go first, at full resolution, because padding
must not have a say in anything. Then, on a reduced copy: is it a negative; where does the exposed field end;
where are letters; which greys does the field hold, letters left out. Only then are the image's own pixels
touched: cut, filled, letterboxed once (antialiased), and stretched.

What that buys, at 128 pixels: padding an image (any constant grey, any side) or inverting it changes nothing.
Scaling its greys (by 0.6 or more) and shifting them without clipping, or storing it with 16 bits, changes it
by rounding: a mean absolute difference below :data:`TOLERANCE` grey levels of 255, and 99 % of its pixels
within :data:`TOLERANCE_99`. In up to one image in ten the rounding tips a decision (on a border or a letter),
and the difference is larger there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from PIL import Image

from cxrlib.errors import ConfigError, DataError, course_packages
from cxrlib.images.borders import Box, exposed_box, flat_box, reduced
from cxrlib.images.geometry import Geometry
from cxrlib.images.markers import find_markers, inpaint
from cxrlib.images.polarity import bone_is_bright
from cxrlib.io.decode import FITS, resize

PREPROCESS_VERSION = 1
"""Raised by one whenever an image may come out with other pixels: caches are keyed by it."""

TOLERANCE, TOLERANCE_99 = 2.0, 12.0

_SPREAD = 52.0  # grey levels a standard deviation, of the normal distribution that "histogram" aims at


@dataclass(frozen=True)
class PreprocessConfig:
    """Which steps are taken, and how. All are off in ``PreprocessConfig.none()``.

    - ``invert``: "auto": turn negatives (bone dark) around. False: leave them.
    - ``crop_borders``: cut off padding, film edges and collimation.
    - ``markers``: "inpaint": find letters and burned-in text and fill them from around. "find": only report
      them. None: neither.
    - ``normalise``: "percentiles": the two percentiles of the exposed field become 0 and 255. "histogram":
      its greys get a normal distribution, so that the tone curve of the device goes, and some of the contrast
      between patients with it. None: greys stay.
    - ``percentiles``: for "percentiles", 0 ≤ low < high ≤ 100.
    - ``clahe``: equalise the contrast locally (skimage.exposure.equalize_adapthist).
    - ``clip_limit``: for CLAHE, 0 to 1.
    - ``fit``: "letterbox" or "stretch", see :func:`cxrlib.io.decode.resize`.
    - Raises ConfigError: a value that is none of these.
    """

    invert: str | bool = "auto"
    crop_borders: bool = True
    markers: str | None = "inpaint"
    normalise: str | None = "percentiles"
    percentiles: tuple[float, float] = (1.0, 99.0)
    clahe: bool = False
    clip_limit: float = 0.01
    fit: str = "letterbox"

    def __post_init__(self) -> None:
        allowed = {
            "invert": ("auto", False),
            "crop_borders": (True, False),
            "markers": ("inpaint", "find", None),
            "normalise": ("percentiles", "histogram", None),
            "clahe": (True, False),
            "fit": FITS,
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ConfigError(
                    f"The setting {name} is {getattr(self, name)!r}.",
                    remedy=f"Use one of {', '.join(map(repr, values))}.",
                )
        object.__setattr__(self, "percentiles", tuple(float(value) for value in self.percentiles))
        if len(self.percentiles) != 2 or not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ConfigError(
                f"The percentiles are {self.percentiles}.", remedy="Give two, 0 ≤ low < high ≤ 100."
            )
        if not 0 < self.clip_limit <= 1:
            raise ConfigError(
                f"The clip_limit is {self.clip_limit!r}.", remedy="Give a number above 0, at most 1."
            )

    @classmethod
    def none(cls, fit: str = "letterbox") -> PreprocessConfig:
        """Nothing but the resize."""
        return cls(invert=False, crop_borders=False, markers=None, normalise=None, fit=fit)


@dataclass(frozen=True, eq=False)
class Processed:
    """One image after the pipeline.

    - ``image``: uint8, shape (size, size); 0 around the letterboxed part.
    - ``geometry``: where its pixels come from.
    - ``marker_mask``: uint8 0/1, shape (size, size): letters and text, also where they have been filled.
    - ``inverted``: it was a negative and has been turned around.
    - ``border_cropped``: share of the original's area that was cut off.
    - ``marker_area``: share of the processed image that is marked.
    """

    image: np.ndarray
    geometry: Geometry
    marker_mask: np.ndarray
    inverted: bool
    border_cropped: float
    marker_area: float


def steps(config: PreprocessConfig | None = None) -> dict[str, PreprocessConfig]:
    """The pipeline one step after another: each name's config holds this step and all before it.

    Steps that ``config`` leaves out are left out, but for CLAHE, which always comes last.
    """
    config = config or PreprocessConfig()
    chain = {"as stored": PreprocessConfig.none(config.fit)}
    for name, fields in (
        ("inversion", ("invert",)),
        ("borders", ("crop_borders",)),
        ("markers", ("markers",)),
        ("normalisation", ("normalise", "percentiles")),
    ):
        before = list(chain.values())[-1]
        after = replace(before, **{field: getattr(config, field) for field in fields})
        if after != before:
            chain[name] = after
    chain["CLAHE"] = replace(list(chain.values())[-1], clahe=True, clip_limit=config.clip_limit)
    return chain


def preprocess_image(image: np.ndarray, size: int, config: PreprocessConfig | None = None) -> Processed:
    """Take one image, uint8 (H, W) of any size, through the pipeline, to ``size`` pixels a side.

    Raises a DataError for an image of another kind, a ConfigError for a size that is no whole number above 0.
    """
    if getattr(image, "ndim", 0) != 2 or image.dtype != np.uint8 or not image.size:
        found = f"{getattr(image, 'dtype', type(image).__name__)} of shape {getattr(image, 'shape', '?')}"
        raise DataError(f"The image is {found}.", remedy="Give a uint8 array of shape (H, W).")
    config = config or PreprocessConfig()
    field, copy, negative = _field(image)
    inverted = bool(negative and config.invert == "auto")
    crop = field if config.crop_borders else Box(0, 0, *image.shape)
    kept = (crop.top, crop.left, crop.height, crop.width)
    geometry = Geometry(image.shape[0], image.shape[1], *kept, int(size), config.fit)
    upright = 255 - copy if negative else copy
    marks = find_markers(upright) if config.markers else np.zeros(copy.shape, bool)
    shown = upright if inverted or not negative else copy
    part = image[crop.slices]
    part = 255 - part if inverted else part
    if config.markers == "inpaint" and marks.any():
        within = Box(field.top - crop.top, field.left - crop.left, field.height, field.width)
        part = _filled(part, within, shown, marks)
    made = resize(part, size, config.fit)
    top, left, height, width = geometry.placed
    region = (slice(top, top + height), slice(left, left + width))
    made = _toned(made, region, shown[~marks] if not marks.all() else shown, config)
    mask = _placed_mask(marks, field, geometry)
    cropped = 1 - crop.height * crop.width / image.size
    return Processed(made, geometry, mask, inverted, float(cropped), float(mask.mean()))


def _field(image: np.ndarray) -> tuple[Box, np.ndarray, bool]:
    """The exposed field in the image's pixels, a reduced copy of it, and whether it is a negative."""
    flat = flat_box(image)
    copy = reduced(image[flat.slices])
    negative = bone_is_bright(copy) < 0
    box = exposed_box(255 - copy if negative else copy)
    if (bone_is_bright(copy[box.slices]) < 0) != negative:  # the border had outvoted the chest
        negative = not negative
        box = exposed_box(255 - copy if negative else copy)
    down, across = flat.height / copy.shape[0], flat.width / copy.shape[1]
    top, left = round(box.top * down), round(box.left * across)
    bottom, right = round((box.top + box.height) * down), round((box.left + box.width) * across)
    field = Box(flat.top + top, flat.left + left, max(1, bottom - top), max(1, right - left))
    return field, np.ascontiguousarray(copy[box.slices]), bool(negative)


def _filled(part: np.ndarray, within: Box, copy: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """The image with its markers filled; what to fill in is worked out on the reduced copy."""
    extent = (within.width, within.height)
    smooth = Image.fromarray(inpaint(copy, marks)).resize(extent, Image.Resampling.BILINEAR)
    where = Image.fromarray(marks.astype(np.uint8) * np.uint8(255)).resize(extent, Image.Resampling.BILINEAR)
    result = part.copy()
    view = result[within.slices]
    np.copyto(view, np.asarray(smooth), where=np.asarray(where) >= 64)
    return result


def _toned(
    made: np.ndarray, region: tuple[slice, slice], sample: np.ndarray, config: PreprocessConfig
) -> np.ndarray:
    """The processed image with its greys normalised inside the region; black stays around it."""
    if config.normalise is None and not config.clahe:
        return made
    values = made[region]
    if config.normalise:
        values = _curve(sample, config)[values]
    if config.clahe and min(values.shape) >= 8 and np.ptp(values):
        with course_packages("CLAHE"):
            from skimage.exposure import equalize_adapthist

        equal = equalize_adapthist(values, clip_limit=config.clip_limit)
        values = np.rint(equal * 255).astype(np.uint8)
    result = np.zeros_like(made)
    result[region] = values
    return result


def _curve(sample: np.ndarray, config: PreprocessConfig) -> np.ndarray:
    """What becomes of each of the 256 greys, given those of the exposed field. uint8, (256,)."""
    if config.normalise == "percentiles":
        low, high = np.percentile(sample, config.percentiles)
        if high - low < 1:
            return np.zeros(256, np.uint8)
        return np.rint(np.clip((np.arange(256) - low) * (255 / (high - low)), 0, 255)).astype(np.uint8)
    counts = np.bincount(sample.ravel(), minlength=256).astype(np.float64)
    if np.count_nonzero(counts) < 2:
        return np.zeros(256, np.uint8)
    share = (np.cumsum(counts) - counts / 2) / counts.sum()
    normal = NormalDist(127.5, _SPREAD)
    curve = [normal.inv_cdf(value) for value in np.clip(share, 1e-4, 1 - 1e-4)]
    return np.rint(np.clip(curve, 0, 255)).astype(np.uint8)


def _placed_mask(marks: np.ndarray, field: Box, geometry: Geometry) -> np.ndarray:
    mask = np.zeros((geometry.size, geometry.size), np.uint8)
    if marks.any():
        edges = (field.left, field.top, field.left + field.width, field.top + field.height)
        x0, y0, x1, y1 = (round(value) for value in geometry.to_processed_box(edges))
        if x1 > x0 and y1 > y0:
            image = Image.fromarray(marks.astype(np.uint8) * np.uint8(255))
            part = image.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR)
            mask[y0:y1, x0:x1] = np.asarray(part) >= 64
    return mask
