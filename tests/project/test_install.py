"""Without the extra, a fresh environment has the audit, the lungs and the data, and no torch."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import cxrlib
from benchmarks.speed.install import MEGABYTES_ALLOWED, build_wheel, install, megabytes


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The folder of an environment into which the wheel was installed, with nothing it does not ask for."""
    folder = tmp_path_factory.mktemp("install")
    quick = ["--quiet", "--no-deps", "--retries", "0", "--timeout", "10", "--no-cache-dir"]
    command = [sys.executable, "-m", "pip", "download", *quick, "--dest", str(folder), "lazy_loader"]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("pip's package index cannot be reached: this test installs from it")
    install(build_wheel(folder), "", folder / "env")
    return folder / "env"


@pytest.fixture(scope="module")
def run(environment):
    """Run a program of the environment in an empty folder, with nothing of this one on its path."""
    place = environment.parent / "place"
    place.mkdir()
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    variables |= {"CXRLIB_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1"}

    def done(program, *arguments):
        command = [str(environment / "bin" / program), *map(str, arguments)]
        return subprocess.run(command, cwd=place, env=variables, capture_output=True, text=True)

    return done


@pytest.fixture(scope="module")
def radiographs(environment):
    """Eighty phantoms as PNG and a CSV of their labels, with a column ward."""
    folder = environment.parent / "radiographs"
    folder.mkdir()
    cohort = cxrlib.load("phantom", n=80, image_size=128, seed=2)
    lines = ["image,label,patient_id,ward"]
    for row, (image, label) in enumerate(zip(cohort.images, cohort.labels, strict=True)):
        Image.fromarray(np.asarray(image)).save(folder / f"{row:02d}.png")
        lines.append(f"{row:02d}.png,{label},{cohort.patients[row]},{'AB'[label]}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_it_is_small_and_brings_no_torch_jupyter_or_sphinx(environment, run):
    listed = json.loads(run("python", "-m", "pip", "list", "--format", "json").stdout)
    names = {one["name"].lower() for one in listed}
    assert "cxrlib" in names and "onnxruntime" in names
    heavy = {"torch", "torchvision", "torchxrayvision", "jupyterlab", "sphinx", "captum", "scikit-learn"}
    assert not names & heavy
    assert megabytes(environment) < 1.25 * MEGABYTES_ALLOWED  # missed: imagecodecs brings 80 MB; pip is in it


def test_the_audit_asks_about_the_ward(environment, run, radiographs):
    done = run(
        "cxr", "audit", radiographs, "--labels", "labels.csv", "--out", "audit", "--workers", "1", "--json"
    )
    assert done.returncode in (0, 2), done.stderr
    findings = {one["title"]: one["severity"] for one in json.loads(done.stdout)["findings"]}
    assert findings["Column ward"] == "warning"  # it equals the label: the label in other words, perhaps
    assert (environment.parent / "place" / "audit" / "audit.html").stat().st_size > 10_000


def test_the_lungs_of_files_are_found(run, radiographs):
    done = run("cxr", "lungs", "apply", radiographs / "00.png", radiographs / "01.png", "--out", "masks")
    assert done.returncode == 0, done.stderr
    assert "2 of 2 images written" in done.stdout


def test_the_sources_are_listed_and_the_phantom_described(run):
    done = run("cxr", "data", "list")
    assert done.returncode == 0 and "kermany" in done.stdout, done.stderr
    done = run("cxr", "data", "show", "phantom", "--set", "n=4", "--image-size", "32")
    assert done.returncode == 0 and "patients" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "train --out runs/one",
        "evaluate runs/one/best.pt",
        "predict runs/one/best.pt .",
        "report --out report",
        "lungs train --out lungs.safetensors",
        "lungs evaluate",
        "lungs apply {image} --out masks --weights lungs.safetensors",
        "data show pneumoniamnist",
        "data verify nih --data-dir .",
    ],
)
def test_a_command_that_needs_the_extra_says_so_in_one_line(command, run, radiographs):
    done = run("cxr", *command.format(image=radiographs / "00.png").split())
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("cxr: ") and line.endswith('not installed: pip install "cxrlib[course]"')
