"""Where a network looks: attributions, what share of them lies where it should, and what they are worth.

Maps come from captum; positive values speak for pneumonia. A map is worth reading only if it changes when the
network's weights are replaced by noise (Adebayo et al., NeurIPS 2018, arXiv:1810.03292), and its share of a
region means something only against the share that the region has of the image.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from scipy.ndimage import maximum_filter
from scipy.stats import rankdata
from torch import nn

from cxrlib.cohort import Cohort
from cxrlib.errors import ConfigError, DataError
from cxrlib.evaluation.eda import percentiles, resample_patients
from cxrlib.evaluation.eda_images import border
from cxrlib.evaluation.metrics import Estimate
from cxrlib.evaluation.resampling import check_patients
from cxrlib.training.models import Classifier

METHODS = ("grad_cam", "integrated_gradients", "occlusion")
TITLES = {"grad_cam": "Grad-CAM", "integrated_gradients": "integrated gradients", "occlusion": "occlusion"}
SMALLEST_MAP = 7  # cells a side: what Grad-CAM has in CheXNet's network at 224 pixels


def attribute(
    model: Classifier,
    images: np.ndarray,
    method: str = "grad_cam",
    *,
    layer: str | None = None,
    steps: int = 32,
    window: int | None = None,
    batch_size: int = 32,
) -> np.ndarray:
    """Attribution of the logit to the pixels.

    - ``images``: uint8, (N, H, W).
    - ``method``: ``grad_cam`` (Selvaraju et al. 2017, doi:10.1109/ICCV.2017.74), without the final rectifier,
      so that evidence against shows as negative; ``integrated_gradients`` (Sundararajan et al. 2017,
      arXiv:1703.01365) from an image of the training pixels' mean grey; ``occlusion`` (Zeiler and Fergus
      2014, doi:10.1007/978-3-319-10590-1_53): the loss of logit when a window is painted in that grey.
    - ``layer``: for Grad-CAM, a module's name; None for :func:`grad_cam_layer`.
    - ``steps``: of the integral from grey to image.
    - ``window``: side of the occluding window in pixels, moved by half its side; None for an eighth of the
      image.
    - Returns: float32, (N, H, W), in logits (a pixel's share for integrated gradients; for Grad-CAM in no
      unit).
    """
    if method not in METHODS:
        raise ConfigError(f"There is no method {method!r}.", remedy=f"Use one of {', '.join(METHODS)}.")
    images = np.asarray(images)
    if images.ndim != 3 or images.dtype != np.uint8 or not len(images):
        raise DataError(
            f"The images are {images.dtype} of shape {images.shape}.",
            remedy="Give uint8 images, 0–255, of shape (N, H, W), as a cohort's are.",
        )
    if steps < 1 or (window is not None and not 1 <= window <= min(images.shape[1:])):
        raise ConfigError(
            f"{steps} steps and a window of {window} pixels.",
            remedy=f"Give at least 1 step and a window of 1 to {min(images.shape[1:])}.",
        )
    from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam, Occlusion

    model.eval()
    device = model.mean.device
    grey = float(model.mean)
    parts = []
    if method == "grad_cam":
        modules = dict(model.named_modules())
        name = grad_cam_layer(model, images.shape[1]) if layer is None else layer
        if name not in modules:
            raise ConfigError(f"The network has no layer {name!r}.", remedy=f"Use one of {list(modules)}.")
        explainer = LayerGradCam(model, modules[name])
    elif method == "integrated_gradients":
        explainer = IntegratedGradients(model)
    else:
        explainer = Occlusion(model)
    side = window or max(2, images.shape[1] // 8)
    for start in range(0, len(images), batch_size):
        x = torch.tensor(images[start : start + batch_size], device=device).float().unsqueeze(1)
        if method == "grad_cam":
            maps = LayerAttribution.interpolate(explainer.attribute(x), x.shape[2:], "bilinear")
        elif method == "integrated_gradients":
            maps = explainer.attribute(x, grey, n_steps=steps, internal_batch_size=8 * batch_size)
        else:
            with torch.no_grad():
                maps = explainer.attribute(
                    x,
                    sliding_window_shapes=(1, side, side),
                    strides=(1, max(1, side // 2), max(1, side // 2)),
                    baselines=grey,
                    perturbations_per_eval=8,
                )
        parts.append(maps.detach().float().squeeze(1).cpu().numpy())
    return np.concatenate(parts)


def grad_cam_layer(model: Classifier, image_size: int, smallest: int = SMALLEST_MAP) -> str:
    """The name of the last layer whose map has at least ``smallest`` cells a side (else the largest map).

    The deepest layer knows most and shows least: at 64 pixels the residual network's last map is 2 × 2.
    """
    sides: list[tuple[str, int]] = []

    def note(name: str, module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == 4:
            sides.append((name, min(output.shape[2:])))

    handles = [m.register_forward_hook(partial(note, n)) for n, m in model.named_modules() if n]
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 1, image_size, image_size, device=model.mean.device))
    finally:
        for handle in handles:
            handle.remove()
    sides = [(name, side) for name, side in sides if name != "network"]
    if not sides:
        raise DataError("The network has no layer with a map.", remedy="Use a convolutional network.")
    fine = [name for name, side in sides if side >= smallest]
    return fine[-1] if fine else max(sides, key=lambda pair: pair[1])[0]


def regions(cohort: Cohort) -> dict[str, np.ndarray]:
    """The regions that are known: ``border`` (the outer tenth), ``lungs``, ``lesion``; uint8 (N, H, W)."""
    frame = np.broadcast_to(border(cohort.images.shape[1:]), cohort.images.shape)
    known = {"border": frame, "lungs": cohort.lung_masks, "lesion": cohort.lesion_masks}
    return {name: np.asarray(mask, dtype=np.uint8) for name, mask in known.items() if mask is not None}


def hold_out(cohort: Cohort, image_ids: Iterable[str]) -> Cohort:
    """The cohort with all images of these images' patients in its test part: for maps they must be unseen."""
    patients = cohort.table.loc[cohort.table["image_id"].isin(image_ids), "patient_id"]
    held = cohort.table["patient_id"].isin(patients)
    return cohort.with_columns(split=cohort.table["split"].mask(held, "test"))


def with_boxes(cohort: Cohort, boxes: pd.DataFrame) -> Cohort:
    """Those images of a cohort of NIH's that have a box, the boxes as their lesion masks; maybe none."""
    boxed = cohort.take(cohort.table["image_id"].isin(boxes["image_id"]).to_numpy())
    masks = box_masks(boxed.table["image_id"], boxes, cohort.images.shape[1])
    return boxed.with_images(boxed.images, lesion_masks=masks)


def inside_share(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The share of each map's positive attribution that lies inside its mask.

    ``maps``: float (N, H, W). ``masks``: 0/1, the same shape. Returns float64 (N,); NaN where a map has
    nothing positive.
    """
    positive = np.maximum(np.asarray(maps, dtype=np.float64), 0)
    with np.errstate(invalid="ignore"):
        return (positive * masks).sum(axis=(1, 2)) / positive.sum(axis=(1, 2))


def pointing(maps: np.ndarray, masks: np.ndarray, tolerance: int = 0) -> np.ndarray:
    """The pointing game: is a map's highest pixel inside its mask, or within ``tolerance`` pixels of it?

    Returns float64 (N,): 1 for a hit, 0 for a miss, NaN for a map that is constant.

    Reference: Zhang et al., International Journal of Computer Vision 126:1084–1102, 2018,
    doi:10.1007/s11263-017-1059-x.
    """
    flat = np.asarray(maps).reshape(len(maps), -1)
    hits = _widened(masks, tolerance).reshape(len(maps), -1)[np.arange(len(flat)), flat.argmax(axis=1)]
    return np.where(np.ptp(flat, axis=1) > 0, hits.astype(float), np.nan)


def localisation(
    maps: np.ndarray,
    masks: np.ndarray,
    patients: ArrayLike | None = None,
    *,
    tolerance: int = 0,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Estimate]:
    """How much of the attribution lies in a region, against what chance would put there.

    Images whose mask is empty or whose map has nothing positive are left out.

    - Returns: Means over images with intervals by patient: ``share`` (:func:`inside_share`), ``area`` (the
      region's share of the image: where a map knows nothing), ``other`` (the share in other images' masks:
      where a map knows only where such regions usually are), ``excess`` (share − area), ``beyond_place``
      (share − other), ``pointing`` (:func:`pointing`) and ``pointing_chance`` (the widened region's share of
      the image).
    """
    if maps.shape != masks.shape:
        raise DataError(f"Maps are {maps.shape}, masks {masks.shape}.", remedy="Give a mask for each map.")
    if patients is not None:
        check_patients(np.asarray(patients), len(maps))
    used = masks.any(axis=(1, 2)) & (maps > 0).any(axis=(1, 2))
    if not used.any():
        raise DataError("No image has both a mask and a positive map.", remedy="Choose other images.")
    owners = np.arange(len(maps)) if patients is None else np.asarray(patients)
    maps, masks = maps[used], masks[used]
    share, area = inside_share(maps, masks), masks.mean(axis=(1, 2))
    other = share
    if len(maps) > 1:
        positive = np.maximum(maps, 0).reshape(len(maps), -1).astype(np.float64)
        positive /= positive.sum(axis=1, keepdims=True)
        crossed = positive @ masks.reshape(len(masks), -1).T.astype(np.float64)
        other = (crossed.sum(axis=1) - np.diag(crossed)) / (len(maps) - 1)
    values = {
        "share": share,
        "area": area,
        "other": other,
        "excess": share - area,
        "beyond_place": share - other,
        "pointing": np.nan_to_num(pointing(maps, masks, tolerance)),
        "pointing_chance": _widened(masks, tolerance).mean(axis=(1, 2)),
    }
    return _means(values, owners[used], replicates, level, seed)


def randomised(model: Classifier, seed: int = 0) -> list[tuple[str, Classifier]]:
    """Copies of the network with ever more of its blocks re-initialised, from the logit down to the pixels.

    - Returns: Pairs of (name of the block added last, network in evaluation mode), the last one all noise.
    """
    noisy = copy.deepcopy(model).eval()
    cascade = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, block in reversed(_blocks(noisy.network)):
            for part in block.modules():
                reset = getattr(part, "reset_parameters", None)
                if reset is not None:
                    reset()
            cascade.append((name, copy.deepcopy(noisy)))
    return cascade


def randomisation(
    model: Classifier,
    images: np.ndarray,
    methods: Sequence[str] = ("grad_cam", "integrated_gradients"),
    *,
    patients: ArrayLike | None = None,
    absolute: bool = True,
    seed: int = 0,
    replicates: int = 1000,
    level: float = 0.95,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> pd.DataFrame:
    """Spearman's correlation of maps with those of networks whose weights are ever more random.

    - ``absolute``: compare absolute values, so that a mere change of sign counts as no change.
    - ``options``: method -> keyword arguments of :func:`attribute`.
    - Returns: DataFrame, a row a method and block, in the order of randomisation: ``method``, ``step`` (1, 2,
      …), ``block``, ``correlation`` (mean over images), ``low``, ``high`` (by patient), ``n``. Step 0, block
      ``another image``, is the correlation with the trained network's map of the next image: what two maps
      share without sharing a picture.
    """
    cascade = randomised(model, seed)
    owners = np.arange(len(images)) if patients is None else np.asarray(patients)
    rows = []
    for method in methods:
        chosen = dict((options or {}).get(method, {}))
        if method == "grad_cam":
            chosen.setdefault("layer", grad_cam_layer(model, images.shape[1]))
        trained = attribute(model, images, method, **chosen)
        compared = [("another image", np.roll(trained, 1, axis=0))] if len(images) > 1 else []
        compared += [(name, attribute(noisy, images, method, **chosen)) for name, noisy in cascade]
        for step, (block, maps) in enumerate(compared, 2 - min(len(images), 2)):
            values = rank_correlation(trained, maps, absolute=absolute)
            found = _means({"correlation": values}, owners, replicates, level, seed)["correlation"]
            rows.append((method, step, block, found.value, found.low, found.high, found.n))
    return pd.DataFrame(rows, columns=["method", "step", "block", "correlation", "low", "high", "n"])


def rank_correlation(maps: np.ndarray, others: np.ndarray, *, absolute: bool = True) -> np.ndarray:
    """Spearman's correlation of each pair of maps, float64 (N,); 0 where one of them is constant."""
    ranks = []
    for array in (maps, others):
        flat = np.asarray(array, dtype=np.float64).reshape(len(array), -1)
        ranked = rankdata(np.abs(flat) if absolute else flat, axis=1)
        ranks.append(ranked - ranked.mean(axis=1, keepdims=True))
    scale = np.sqrt((ranks[0] ** 2).sum(axis=1) * (ranks[1] ** 2).sum(axis=1))
    return np.where(scale > 0, (ranks[0] * ranks[1]).sum(axis=1) / np.where(scale > 0, scale, 1), 0.0)


def estimates(
    shares: Mapping[str, Mapping[str, Mapping[str, Estimate]]], cascade: pd.DataFrame
) -> dict[str, Estimate]:
    """What is recorded: ``<region>.<method>.<number>`` and ``randomisation.<method>.step_<k>``.

    ``shares``: region -> method -> :func:`localisation`; ``cascade``: :func:`randomisation`.
    """
    fixed = ("share", "area", "excess")  # another image's border is the same border
    numbers = {
        f"{region}.{method}.{name}": estimate
        for region, by_method in shares.items()
        for method, found in by_method.items()
        for name, estimate in found.items()
        if region != "border" or name in fixed
    }
    last = cascade["step"].max()
    for row in cascade.to_dict("records"):
        names = [f"step_{row['step']:02d}"] if row["step"] else ["another_image"]
        found = Estimate(row["correlation"], row["low"], row["high"], row["n"])
        for name in [*names, *(["all_random"] if row["step"] == last else [])]:
            numbers[f"randomisation.{row['method']}.{name}"] = found
    return numbers


def box_masks(
    image_ids: Sequence[str] | pd.Series, boxes: pd.DataFrame, image_size: int, original: int = 1024
) -> np.ndarray:
    """NIH's boxes as masks on square images.

    - ``image_ids``: shape (N,).
    - ``boxes``: from :func:`cxrlib.datasets.nih_tables.boxes`, all or some findings; in pixels of
      ``original``.
    - Returns: uint8 0/1, (N, image_size, image_size): the union of an image's boxes; empty where it has none.
    """
    masks = np.zeros((len(image_ids), image_size, image_size), dtype=np.uint8)
    rows = {image_id: row for row, image_id in enumerate(image_ids)}
    scale = image_size / original
    for box in boxes[boxes["image_id"].isin(rows)].to_dict("records"):
        left, top = int(np.floor(box["x"] * scale)), int(np.floor(box["y"] * scale))
        right = int(np.ceil((box["x"] + box["w"]) * scale))
        bottom = int(np.ceil((box["y"] + box["h"]) * scale))
        masks[rows[box["image_id"]], max(0, top) : bottom, max(0, left) : right] = 1
    return masks


def _blocks(network: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """The network's parts that have weights, in order, sequences opened up."""
    found = []
    for name, part in network.named_children():
        if isinstance(part, nn.Sequential):
            found += _blocks(part, f"{prefix}{name}.")
        elif any(True for _ in part.parameters()):
            found.append((f"{prefix}{name}", part))
    return found


def _means(
    values: Mapping[str, np.ndarray], patients: np.ndarray, replicates: int, level: float, seed: int
) -> dict[str, Estimate]:
    """Means over images and their intervals by patient, on the same draws; NaN rows are left out."""
    kept = np.all([np.isfinite(value) for value in values.values()], axis=0)
    if not kept.any():
        raise DataError("No image gives a value.", remedy="Look at the maps: they may all be constant.")
    columns = [np.ones(kept.sum()), *(value[kept] for value in values.values())]
    sums = resample_patients(np.stack(columns, axis=1), patients[kept], replicates=replicates, seed=seed)
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = percentiles(sums[:, 1:] / sums[:, :1], level)
    n = int(kept.sum())
    return {
        name: Estimate(float(value[kept].mean()), float(low[i]), float(high[i]), n)
        for i, (name, value) in enumerate(values.items())
    }


def _widened(masks: np.ndarray, tolerance: int) -> np.ndarray:
    if tolerance <= 0:
        return np.asarray(masks)
    return maximum_filter(np.asarray(masks), size=(1, 2 * tolerance + 1, 2 * tolerance + 1))
