"""The study of what a radiograph shows: six real ones, side by side."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from cxrlib.datasets import nih_tables
from cxrlib.io.cache import decode_files
from cxrlib.plots.common import image_grid
from cxrlib.report.evidence.registry import Made, Run

SIZE = 256
CHILDREN = {
    "train/NORMAL/IM-0546-0001.jpeg": "labelled normal",
    "train/PNEUMONIA/person586_bacteria_2417.jpeg": "labelled bacterial:\none lobe is white",
    "train/PNEUMONIA/person486_virus_990.jpeg": "labelled viral:\nstreaks on both sides",
}
ADULTS = {
    "00001715_000.png": "PA, no finding",
    "00016727_000.png": "AP, no finding",
    "00001511_000.png": "AP, labelled pneumonia\nand atelectasis",
}
INITIALS = (slice(12, 33), slice(203, 229))
"""Where the last of them has somebody's initials, at :data:`SIZE` pixels."""


def radiographs(run: Run) -> Made:
    """Kermany's children above, NIH's adults below; the numbers are the labels that the sources give."""
    children, nih = [Path(str(run.data_dir)) / name for name in CHILDREN], run.folder("nih_dir")
    images = np.array(decode_files([*children, *(nih / name for name in ADULTS)], SIZE).images)
    images[-1][INITIALS] = 0
    labels = [int(path.parent.name == "PNEUMONIA") for path in children]
    labels += nih_tables.metadata().set_index("image_id")["label"].loc[list(ADULTS)].tolist()
    axes = plt.subplots(2, 3, figsize=(5.3, 4.4), layout="constrained")[1]
    image_grid(images, [*CHILDREN.values(), *ADULTS.values()], columns=3, axes=axes)
    names = [Path(name).stem for name in (*CHILDREN, *ADULTS)]
    return Made({f"label.{name}": label for name, label in zip(names, labels, strict=True)}, axes[0, 0])
