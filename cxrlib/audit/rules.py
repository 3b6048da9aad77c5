"""What an audit looks for, how a finding is judged, and what to do about it.

The rule
--------
A probe is *established* where its p-value, corrected by Holm over all probes of the audit, is below 0.05.

severe
    Established, the lower limit of the AUC's interval at least 0.60, and at least a quarter of what the whole
    image reaches above one half; and the probe cannot see the disease.
warning
    Established, an AUC of at least 0.55, and it cannot see the disease; or it would be severe, and what it
    sees may be medicine (age and sex, the size of a compressed file), or another finding explains it. A
    column that all but equals the label, which may be the label in other words; and a source that pixels do
    not show.
note
    Established, and all that is left; a probe that may see the disease is never more than a note.
fine
    Not established.

Counts (duplicates, patients in two splits) are severe from one in a hundred images on, else warnings.
Annotations burned into the pixels, declared or seen, are a warning: they may name a patient, whatever they
say of the label.
"""

from __future__ import annotations

from dataclasses import dataclass

from cxrlib.evaluation.metrics import Estimate

SEVERITIES = ("severe", "warning", "note", "fine")
SIGNIFICANCE, SEVERE_AUC, WARNING_AUC, SEVERE_SHARE, SEVERE_COUNT = 0.05, 0.60, 0.55, 0.25, 0.01


@dataclass(frozen=True)
class Probe:
    """One thing that an audit looks at.

    - ``name``, ``title``: in numbers and file names; for people.
    - ``group``: sign, view, table, file, source or leak.
    - ``sees``: what its result may be other than a shortcut: "no" disease, "yes", "perhaps" (at most a
      warning).
    - ``what``: what the classifier was shown, as a sentence.
    - ``advice``: what to do where it is found.
    """

    name: str
    title: str
    group: str
    sees: str
    what: str
    advice: str


#: Every probe by its name.
PROBES: dict[str, Probe] = {
    probe.name: probe
    for probe in (
        Probe(
            "marker", "Lead letters", "sign", "no",
            "Whether a letter-like mark lies in the outer part of the film, how bright it is, and on which "
            "side.",
            "Paint letters out (cxrlib.images does), or crop to the lungs; check that both classes come "
            "from the same rooms and years.",
        ),
        Probe(
            "text", "Burned-in text", "sign", "no",
            "Whether a line of text-like marks lies in the outer part of the film, and on which side.",
            "Have images exported without annotation, or paint text out; if it says PORTABLE or names a "
            "ward, balance or stratify by it.",
        ),
        Probe(
            "border", "Collimation and borders", "sign", "no",
            "How much of each side is unexposed.",
            "Crop every image to its exposed field, or to the lungs (cxrlib.images.regions.crop_to_lungs).",
        ),
        Probe(
            "exposure", "Exposure", "sign", "no",
            "The greys of the upper mediastinum, between the lungs.",
            "Normalise intensities, and vary exposure at random in training; ask whether the classes come "
            "from different machines.",
        ),
        Probe(
            "devices", "Devices", "sign", "no",
            "Whether small round bright things, such as electrodes, lie on the chest.",
            "Treated patients carry devices: report results with and without them, and balance the training "
            "by them. Masking them hides them from people, less so from networks.",
        ),
        Probe(
            "projection", "Projection (AP or PA)", "sign", "no",
            "How much the heart, mediastinum and shoulder blades look like those of an AP film.",
            "Bedside images are of the more ill. Train and test within one projection, or balance by it, "
            "and report the AUC in each.",
        ),
        Probe(
            "polarity", "Negatives", "sign", "no",
            "Whether bone is dark.",
            "Turn negatives round (cxrlib.images does).",
        ),
        Probe(
            "frame", "The outer tenth alone", "view", "no",
            "The image with everything but its outer tenth painted black.",
            "On a film of the whole chest there is hardly lung there (in images cut to the lungs there is). "
            "Look at the pictures for what differs; crop to the lungs.",
        ),
        Probe(
            "corners", "The corners alone", "view", "no",
            "Four squares of 15% of the side, and nothing else.",
            "On a film of the whole chest there is hardly any lung there. Look at the pictures for what "
            "differs; crop to the lungs.",
        ),
        Probe(
            "lungs_removed", "The lungs painted over", "view", "no",
            "The image with the box around the lungs painted black.",
            "What differs lies outside the lungs: posture, size, labels, exposure. Crop to the lungs, then "
            "look at exposure and projection.",
        ),
        Probe(
            "lung_shape", "The outline of the lungs", "view", "yes",
            "The segmented lungs as a black and white picture.",
            "Disease changes outlines, and so does the segmenter's failing on it. Do not take lungs-only "
            "results as free of shape.",
        ),
        Probe("blur", "A 16 × 16 blur", "view", "yes", "Sixteen by sixteen mean greys.",
              "Coarse greys can be disease or exposure: compare with the exposure probe."),
        Probe("histogram", "Greys without places", "view", "yes", "How often each grey occurs.",
              "Greys can be disease or exposure: compare with the exposure probe."),
        Probe("lungs_only", "The lungs alone", "view", "yes", "Everything but the lungs painted black.",
              "This is where disease should be."),
        Probe("whole", "The whole image", "view", "yes", "The image in a light classifier's eyes.",
              "What the shortcuts are compared with; a trained network will reach more."),
        Probe(
            "metadata", "Columns taken together", "table", "no",
            "The columns of the table, without pixels; not the source, and none that all but equals the "
            "label.",
            "Match or balance the classes by the columns that stand out, and report results within their "
            "levels.",
        ),
        Probe(
            "dimensions", "Size and shape of the files", "file", "no",
            "Height, width and aspect ratio of the stored images.",
            "Resizing does not hide it: aspect leaves bars or a stretch, resolution leaves sharpness. Get "
            "both classes through one export.",
        ),
        Probe(
            "encoding", "How the files were written", "file", "no",
            "Format, colour mode, bit depth, quantisation tables, software tags, DICOM transfer syntax and "
            "maker.",
            "Compression leaves traces in the pixels. Get both classes through one export, from lossless "
            "originals.",
        ),
        Probe(
            "file_size", "Bytes a file", "file", "perhaps",
            "How many bytes each file has, and how many a pixel.",
            "A smooth lung compresses better than an ill one, so this can be disease; compare with the "
            "encoding.",
        ),
        Probe(
            "source", "Source", "source", "no",
            "Where an image comes from, as the table says: what that alone says of the label.",
            "Train and test within a source, or sample so that the label is equally frequent in each, and "
            "keep one source for the test alone.",
        ),
        Probe("burned_in", "Burned-in annotations", "file", "no",
              "What DICOM headers say of text in the pixels (BurnedInAnnotation).",
              "Names and dates in the pixels identify patients: look at these files, and have them painted "
              "out or exported without, before images or pages of them go around."),
        Probe("printed_text", "Printed text", "file", "no",
              "The pixels of each file, at most 1024 a side: whether a line of five or more printed "
              "characters, at least 6 pixels and 0.8% of the side high, is in them.",
              "Look at these files: PORTABLE is harmless, names, dates and numbers identify patients. Have "
              "them painted out or exported without, before images or pages of them go around."),
        Probe("patients", "Patients in two splits", "leak", "no", "Who has images in more than one split.",
              "Split by patient (cxrlib.cohort.split_by_patient); results so far are too good."),
        Probe("duplicate_splits", "Duplicates across splits", "leak", "no",
              "The same picture in two splits.", "Keep one of each, or both in one split."),
        Probe("duplicate_labels", "Duplicates with two labels", "leak", "no",
              "The same picture with and without the label.", "Read them again; drop those that stay "
                  "undecided."),
        Probe("duplicate_patients", "Duplicates of two patients", "leak", "no",
              "The same picture under two patients.",
              "Find out which id is right: splits by patient are only as good as the ids."),
        Probe("duplicates", "Duplicates", "leak", "perhaps", "The same picture more than once.",
              "Keep one of each: copies weigh twice in training and make intervals too narrow."),
    )
}  # fmt: skip

#: Columns that may be medicine and not a shortcut.
DEMOGRAPHIC = ("age", "sex", "gender")


def column_probe(column: str) -> Probe:
    """The probe of one column of the table."""
    perhaps = column.lower() in DEMOGRAPHIC
    return Probe(
        f"column_{column}", f"Column {column}", "table", "perhaps" if perhaps else "no",
        f"The column {column} of the table, without pixels.",
        "Ask how it comes to go with the label: selection, or medicine? Match or balance the classes by it."
        if perhaps else "Match or balance the classes by it, and report results within its levels.",
    )  # fmt: skip


def judged(probe: Probe, auc: Estimate, p_holm: float, share: float | None) -> str:
    """The severity of a probe's AUC by this module's rule; ``share`` None: the whole image gave nothing."""
    if p_holm >= SIGNIFICANCE:
        return "fine"
    if probe.sees == "yes":
        return "note"
    strong = auc.low is not None and auc.low >= SEVERE_AUC and (share is None or share >= SEVERE_SHARE)
    if strong:
        return "severe" if probe.sees == "no" else "warning"
    return "warning" if auc.value >= WARNING_AUC and probe.sees == "no" else "note"


def judged_count(probe: Probe, concerned: int, of: int) -> str:
    """The severity of a count of images: severe from one in a hundred on."""
    if not concerned:
        return "fine"
    if probe.sees == "perhaps":
        return "note"
    return "severe" if concerned >= SEVERE_COUNT * of else "warning"
