"""What the phantom's causal model draws before anything is rendered: who, how, ill or not, confounded or not.

Every group of latents of every patient or image comes from a random stream of its own (Philox, keyed by seed,
group and number). So image i is the same whether 10 or 10,000 are made, and one group can be changed while
all others keep their values: that is what a counterfactual twin is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from cxrlib.errors import ConfigError

#: Stream numbers. Changing one changes the cohort that a seed gives.
PATIENT, TREE, EXAM, LABEL, LESION, NUISANCE, OVERLAY, NOISE, COUNT, FINDING, TEXTURE, FILM, SKELETON = range(
    1, 14
)

#: The confounders, in the order of the table's columns; ``view`` is projection, as its column is called.
CONFOUNDERS = ("projection", "portable", "marker", "collimation", "exposure", "devices")


@dataclass(frozen=True)
class Confounder:
    """How often something that is no disease is in the image, and how far it goes along with the disease.

    - ``rate``: P(present) when it is independent of the label.
    - ``agreement``: 0.5: independent of the label. 1.0: present in every diseased image and in no healthy
      one. Between: ``P(present | ill) = rate + (1 - rate)(2a - 1)`` and ``P(present | healthy) = rate (2 -
      2a)``; at a rate of one half these are a and 1 - a. Below 0.5 the same with ill and healthy exchanged.
    """

    rate: float = 0.5
    agreement: float = 0.5

    def probability(self, ill: bool) -> float:
        """P(present | label)."""
        pull = 2 * self.agreement - 1
        towards = ill if pull >= 0 else not ill
        return self.rate + (1 - self.rate) * abs(pull) if towards else self.rate * (1 - abs(pull))


@dataclass(frozen=True)
class PhantomConfig:
    """The phantom's knobs. The defaults are the embedded cohort: mild confounding, like a hospital's archive.

    - ``prevalence``: P(label = 1).
    - ``diffuse_share``: P(diffuse interstitial | ill); the rest is lobar consolidation.
    - ``severity``: multiplies the opacity of disease, and roughly its cube root the extent: 1 is the
      calibrated difficulty, 2 is easy, 0.5 is hard.
    - ``nuisance``: multiplies the rate of findings that do not depend on the label: nodules, scars, bands,
      blunted angles.
    - ``images_per_patient``: mean number of images a patient, at least 1 (geometric, at most 12).
    - ``persistence``: P(an image has its patient's usual label instead of a fresh draw).
    - ``sites``: names of the hospitals. The last one is the one whose exposure differs.
    - ``projection``, ``portable``, ``marker``, ``collimation``, ``exposure``, ``devices``: the confounders:
      AP projection, burned-in PORTABLE, a lead letter, a collimator's border, the last site's exposure,
      electrodes and lines. A :class:`Confounder`, or a number, which sets the agreement alone.
    - Raises ConfigError: a knob that is out of range or of the wrong kind.
    """

    prevalence: float = 0.4
    diffuse_share: float = 0.4
    severity: float = 1.0
    nuisance: float = 1.0
    images_per_patient: float = 1.5
    persistence: float = 0.6
    sites: tuple[str, ...] = ("north", "south")
    projection: Confounder = field(default=Confounder(0.35, 0.58))
    portable: Confounder = field(default=Confounder(0.2, 0.55))
    marker: Confounder = field(default=Confounder(0.5, 0.5))
    collimation: Confounder = field(default=Confounder(0.3, 0.5))
    exposure: Confounder = field(default=Confounder(0.35, 0.55))
    devices: Confounder = field(default=Confounder(0.25, 0.56))

    def __post_init__(self) -> None:
        for name in CONFOUNDERS:
            knob = getattr(self, name)
            if not isinstance(knob, Confounder):
                number = _number(name, knob, 0, 1)
                knob = replace(getattr(type(self), name), agreement=number)  # the class has the default
                object.__setattr__(self, name, knob)
            _number(f"{name}.rate", knob.rate, 0, 1)
            _number(f"{name}.agreement", knob.agreement, 0, 1)
        for name in ("prevalence", "diffuse_share", "persistence"):
            _number(name, getattr(self, name), 0, 1)
        _number("severity", self.severity, 0, 10)
        _number("nuisance", self.nuisance, 0, 10)
        _number("images_per_patient", self.images_per_patient, 1, 8)
        object.__setattr__(self, "sites", (self.sites,) if isinstance(self.sites, str) else tuple(self.sites))
        if not self.sites or len(set(self.sites)) < len(self.sites):
            raise ConfigError(
                f"The phantom's sites are {self.sites!r}.",
                remedy="Name at least one site, and none of them twice.",
            )

    @classmethod
    def from_knobs(cls, **knobs: Any) -> PhantomConfig:
        """A config from keyword arguments, with a ConfigError that lists the knobs there are."""
        names = [f.name for f in fields(cls)]
        unknown = sorted(set(knobs) - set(names))
        if unknown:
            raise ConfigError(
                f"The phantom has no knob {', '.join(map(repr, unknown))}.",
                remedy=f"It has {', '.join(names)}.",
            )
        return cls(**knobs)

    def unconfounded(self) -> PhantomConfig:
        """The same with every confounder independent of the label, at its rate."""
        return replace(self, **{name: replace(getattr(self, name), agreement=0.5) for name in CONFOUNDERS})


def _number(name: str, value: Any, low: float, high: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(value, str) or not low <= number <= high:
        raise ConfigError(
            f"The phantom's knob {name!r} is {value!r}.", remedy=f"Give a number from {low} to {high}."
        )
    return number


class Streams:
    """One random generator that is put to the start of any (group, number) stream of a seed.

    The generator is shared: finish with one stream before asking for the next.
    """

    def __init__(self, seed: int) -> None:
        if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
            raise ConfigError(
                f"The phantom's seed is {seed!r}.", remedy="Give an integer from 0 to 2**63 - 1."
            )
        self.seed = int(seed)
        self._bits = np.random.Philox(key=np.array([self.seed, 0], dtype=np.uint64))
        self._start = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def __call__(self, group: int, number: int) -> np.random.Generator:
        self._start["state"]["key"] = np.array([self.seed, (group << 48) | number], dtype=np.uint64)
        self._bits.state = self._start
        return self._generator


@dataclass(frozen=True)
class Latents:
    """All that one image is rendered from. ``replace`` (or ``twin``) makes its counterfactual.

    ``body`` holds the patient's anatomy (cm), ``exam`` the z-scores of how the image was taken, ``lesion``
    the disease that is drawn if ``label`` is 1 and would be drawn if it were. The flags say which confounders
    are in the image. Textures and the shapes of nodules, letters and leads come from streams of their own.
    """

    index: int
    patient: int
    follow_up: int
    label: int
    subtype: str
    severity: float
    nuisance: float
    site: str
    projection: bool
    portable: bool
    marker: bool
    collimation: bool
    exposure: bool
    devices: bool
    body: SimpleNamespace
    exam: SimpleNamespace
    lesion: SimpleNamespace

    @property
    def view(self) -> str:
        """AP or PA."""
        return "AP" if self.projection else "PA"


def patients_of(streams: Streams, start: int, stop: int, mean: float) -> tuple[np.ndarray, np.ndarray]:
    """The patient number and follow-up number of images ``start`` to ``stop``; int64 each."""
    counts: list[np.ndarray] = []
    total, block = 0, 0
    while total < stop:
        u = streams(COUNT, block).random(4096)
        more = np.zeros(4096) if mean <= 1 else np.floor(np.log(1 - u) / np.log(1 - 1 / mean))
        counts.append(np.minimum(1 + more, 12).astype(np.int64))
        total += int(counts[-1].sum())
        block += 1
    per_patient = np.concatenate(counts) if counts else np.zeros(0, dtype=np.int64)
    ends = np.cumsum(per_patient)
    images = np.arange(start, stop)
    patient = np.searchsorted(ends, images, side="right")
    return patient, images - (ends - per_patient)[patient]


#: The body's latents: mean, standard deviation, least, most. Lengths in cm unless said.
BODY = {
    "chest": (13.4, 0.65, 11.6, 15.2),  # half width of the lungs at their widest
    "length": (23.6, 1.5, 19.5, 27.5),  # apex to costophrenic angle
    "apex": (4.4, 0.35, 3.6, 5.4),  # apex from the midline
    "apex_lower": (0.0, 0.5, -1.2, 1.2),  # left apex below the right
    "shoulder": (2.8, 0.3, 2.1, 3.6),  # exponent of the lateral outline
    "roundness": (2.05, 0.16, 1.65, 2.5),  # root of the same
    "dome": (4.4, 0.8, 2.6, 6.4),  # dome above the costophrenic angle
    "dome_lower": (1.2, 0.6, -0.4, 2.8),  # left dome below the right
    "mediastinum": (1.9, 0.35, 1.2, 3.0),
    "knob": (0.95, 0.35, 0.2, 2.0),
    "knob_y": (6.2, 0.5, 5.0, 7.5),
    "trunk": (0.55, 0.3, 0.0, 1.4),
    "heart_left": (7.8, 0.85, 5.9, 10.2),
    "heart_right": (3.4, 0.5, 2.5, 5.2),
    "depth": (20.5, 1.3, 17.0, 24.0),  # front to back, without fat
    "fat": (0.0, 1.0, -2.0, 2.4),  # z-score, made into a thickness below
    "air": (0.80, 0.025, 0.72, 0.87),  # share of air in the lung
    "rib_spacing": (2.45, 0.12, 2.1, 2.8),
    "rib_phase": (0.0, 0.25, -0.5, 0.5),
    "rib_drop": (9.8, 1.1, 7.0, 12.5),
    "rib_width": (0.56, 0.05, 0.42, 0.7),  # half width
    "bone": (1.0, 0.15, 0.6, 1.4),  # density
    "clavicle_y": (2.7, 0.8, 0.6, 4.6),
    "clavicle_rise": (1.8, 1.1, -0.6, 4.4),
    "scapula": (0.0, 1.0, -2.0, 2.0),
    "curve": (0.0, 0.35, -1.0, 1.0),  # scoliosis
    "trachea": (0.3, 0.25, -0.3, 0.9),
    "breast": (0.0, 1.0, -2.0, 2.2),
    "breast_y": (19.0, 1.3, 16.0, 22.0),
    "vessels": (1.0, 0.18, 0.6, 1.5),
    "gas": (0.0, 1.0, -2.0, 2.0),
    "texture": (1.0, 0.2, 0.5, 1.6),
    "width_ratio": (1.0, 0.02, 0.95, 1.05),
}

#: How an image was taken: z-scores that the projection turns into lengths (see ``geometry``).
EXAM_LATENTS = (
    "inspiration", "turn", "angle", "x", "y", "zoom", "aspect", "arms", "grey", "contrast", "detail", "noise",
    "shoulder", "haze", "toe", "balance",
)  # fmt: skip


def draw(streams: Streams, config: PhantomConfig, start: int, stop: int) -> list[Latents]:
    """The latents of images ``start`` to ``stop``."""
    patients, visits = patients_of(streams, start, stop, config.images_per_patient)
    bodies: dict[int, tuple[SimpleNamespace, float]] = {}
    made = []
    for image, patient, visit in zip(range(start, stop), patients.tolist(), visits.tolist(), strict=True):
        if patient not in bodies:
            bodies[patient] = draw_body(streams, patient)
        body, patient_u = bodies[patient]
        rng = streams(EXAM, image)
        exam = SimpleNamespace(**dict(zip(EXAM_LATENTS, _bounded(rng, len(EXAM_LATENTS)), strict=True)))
        u = streams(LABEL, image).random(12)
        ill = bool((patient_u if u[0] < config.persistence else u[1]) < config.prevalence)
        # Portable machines take AP images and their patients carry the devices, so these draws are tied; each
        # still has exactly the probability that its knob says.
        draws = {"projection": u[3], "portable": u[3], "devices": u[3] if u[5] < 0.6 else u[4]}
        draws |= {"marker": u[6], "collimation": u[7], "exposure": u[8]}
        flags = {name: bool(draws[name] < getattr(config, name).probability(ill)) for name in CONFOUNDERS}
        made.append(
            Latents(
                index=image, patient=patient, follow_up=visit, label=int(ill),
                subtype="diffuse" if u[2] < config.diffuse_share else "lobar",
                severity=config.severity, nuisance=config.nuisance,
                site=site_of(config.sites, flags["exposure"], float(u[9])), body=body, exam=exam,
                lesion=draw_lesion(streams, image), **flags,
            )
        )  # fmt: skip
    return made


def site_of(sites: tuple[str, ...], shifted: bool, u: float) -> str:
    """The last site where the exposure is shifted, else one of the others."""
    others = sites[:-1] or sites
    return sites[-1] if shifted else others[min(int(u * len(others)), len(others) - 1)]


def draw_body(streams: Streams, patient: int) -> tuple[SimpleNamespace, float]:
    """A patient's anatomy, age (years) and sex, and the uniform draw behind their usual label."""
    rng = streams(PATIENT, patient)
    patient_u, sex_u = rng.random(2)
    z = rng.standard_normal(len(BODY) + 1)
    body = SimpleNamespace()
    for (name, (mean, deviation, low, high)), value in zip(BODY.items(), z, strict=False):
        setattr(body, name, float(min(max(mean + deviation * value, low), high)))
    body.female = bool(sex_u < 0.46)
    body.age = int(min(max(round(51 + 17 * z[-1]), 18), 94))
    body.fat = float(1.9 * np.exp(0.5 * body.fat))  # thickness under the skin at the side of the chest
    old = (body.age - 50) / 20
    scale = 0.94 if body.female else 1.03
    for name in ("chest", "length", "heart_left", "heart_right", "knob_y", "depth", "mediastinum", "apex"):
        setattr(body, name, getattr(body, name) * scale)
    body.knob = max(body.knob + 0.3 * old, 0.1)
    body.heart_left += 0.25 * old + 0.12 * (body.fat - 2.1)
    body.bone *= 1 - 0.08 * old
    body.depth += 1.4 * (body.fat - 2.1) + 0.5 * old
    return body, float(patient_u)


#: Lobes: side (1 is left), odds, centre and reach, both as shares of the way from midline to chest wall and
#: from apex to costophrenic angle.
LOBES = {
    "right upper": (0, 0.16, (0.58, 0.24), (0.34, 0.17)),
    "right middle": (0, 0.14, (0.52, 0.60), (0.30, 0.11)),
    "right lower": (0, 0.27, (0.60, 0.72), (0.32, 0.16)),
    "left upper": (1, 0.11, (0.60, 0.28), (0.32, 0.18)),
    "lingula": (1, 0.10, (0.68, 0.62), (0.24, 0.13)),
    "left lower": (1, 0.22, (0.68, 0.74), (0.28, 0.15)),
}


def draw_lesion(streams: Streams, image: int) -> SimpleNamespace:
    """The disease of an image, as lobar consolidation and as diffuse interstitial opacity."""
    rng = streams(LESION, image)
    u, z = rng.random(10).tolist(), _bounded(rng, 6)
    edges = np.cumsum([lobe[1] for lobe in LOBES.values()])
    return SimpleNamespace(
        # Lobar: where, how large (1: most of the lobe), share of its air that is gone, the fissure.
        lobe=list(LOBES)[int(np.searchsorted(edges, u[0] * edges[-1]))],
        across=0.08 * z[0], down=0.03 * z[1], lean=0.35 * z[2],
        extent=0.75 + 0.6 * u[1], opacity=0.25 + 0.55 * u[2] ** 1.4,
        fissure=0.47 + 0.01 * z[3], fissure_tilt=0.02 * z[4], fissure_blur=0.012 + 0.03 * u[3],
        # Diffuse: how far up from the bases, round the hila or everywhere, share of air gone, how net-like.
        top=0.62 - 0.42 * u[4], perihilar=u[5] > 0.55, strength=0.18 + 0.24 * u[6] ** 1.5,
        reticular=0.25 + 0.3 * u[7], spared_side=int(u[8] < 0.5), spared=0.45 * u[9],
    )  # fmt: skip


def _bounded(rng: np.random.Generator, count: int) -> list[float]:
    return np.clip(rng.standard_normal(count), -2.2, 2.2).tolist()
