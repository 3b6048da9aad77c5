"""The files that describe the project agree with each other."""

import os
import re
import shutil
import subprocess
import tomllib
from importlib import metadata, resources

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cxrlib
from cxrlib.evaluation.results import project_root

ROOT = project_root()
CONDA_NAMES = {"pytorch": "torch"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
ASKED = [Requirement(r) for r in PROJECT["dependencies"] + EXTRAS["course"] + EXTRAS["dev"]]
WANTED = [requirement for requirement in ASKED if requirement.name != "cxrlib"]


def locked() -> list[Requirement]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def test_conda_and_pip_ask_for_the_same_packages_and_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    entries = environment["dependencies"]
    from_pip = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    stated = [entry for entry in entries if isinstance(entry, str)] + from_pip
    stated = [Requirement(entry) for entry in stated if not entry.startswith("--editable")]
    conda = {CONDA_NAMES.get(r.name, canonicalize_name(r.name)): str(r.specifier) for r in stated}
    assert conda.pop("python") == PROJECT["requires-python"]
    conda.pop("pip")
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    assert f"setuptools{conda.pop('setuptools')}" in build
    assert conda == {canonicalize_name(r.name): str(r.specifier) for r in WANTED}
    assert "--editable ." in from_pip
    assert "cxrlib[course]" in EXTRAS["dev"]


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_the_lock_satisfies_pyproject(python, system):
    environment = default_environment() | {
        "python_version": python,
        "python_full_version": f"{python}.6",
        "sys_platform": system,
        "platform_system": system.capitalize(),
    }
    versions = {}
    for line in locked():
        if line.marker is None or line.marker.evaluate(environment):
            [pin] = line.specifier
            assert canonicalize_name(line.name) not in versions, f"{line.name} is locked twice"
            versions[canonicalize_name(line.name)] = pin.version
    for wanted in WANTED:
        version = versions.get(canonicalize_name(wanted.name))
        assert version and wanted.specifier.contains(version, prereleases=True), f"{wanted}: {version}"
    assert "setuptools" in versions, "the editable install builds without isolation"


def test_the_lock_pins_exactly_and_names_no_host():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert not re.search(r"://|--index|--find-links| @ |\.(com|org|net|io)\b", text)
    assert all([pin.operator for pin in line.specifier] == ["=="] for line in locked())


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"] == cxrlib.__version__
    assert citation["license"] == PROJECT["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")


def test_every_imported_package_is_declared():
    """What the package and its tests import is asked for by name, not only dragged in by another."""
    declared = {canonicalize_name(r.name) for r in WANTED} | {"cxrlib", "kagglehub", "setuptools"}
    # shipped with a declared package and part of its interface
    declared |= {"sphinx", "docutils", "jinja2", "nbformat", "nbclient", "packaging", "pyyaml"}
    declared |= {"click", "cycler", "ipython", "threadpoolctl", "traitlets"}
    providers = metadata.packages_distributions()
    imported = set()
    for path in (ROOT / "cxrlib").rglob("*.py"):
        found = re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        imported |= set(found)
    undeclared = {
        name
        for name in imported & set(providers)
        if not {canonicalize_name(d) for d in providers[name]} & declared
    }
    assert not undeclared


def test_the_sites_templates_and_styles_are_part_of_the_package():
    for inside in (
        "conf.py",
        "scoreboard.toml",
        "templates/index.md.j2",
        "static/report.css",
        "pages/references.bib",
    ):
        assert resources.files("cxrlib.report.site").joinpath(inside).is_file()
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert "report/site/**/*" in setup["package-data"]["cxrlib"]


def test_ci_is_a_script_that_bash_accepts():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_help_names_every_target():
    said = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True).stdout
    for target in ("report", "student", "test", "lab", "lock", "clean"):
        assert f"make {target} " in said


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_refuses_an_old_python_and_says_what_to_do(tmp_path):
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\ncase "$1" in -V) echo Python 3.9.1;; *) exit 1;; esac\n')
    old.chmod(0o755)
    command = ["make", "-C", str(ROOT), "install", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Python 3.11 or newer" in done.stdout and "Python 3.9.1" in done.stdout
    assert not (tmp_path / "venv").exists()


def test_the_forms_for_issues_ask_something_and_warn_of_patients():
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert [form.stem for form in forms] == ["file-does-not-open", "wrong-verdict"]
    for form in forms:
        content = yaml.safe_load(form.read_text(encoding="utf-8"))
        assert {"name", "description", "body"} <= set(content)
        assert "attach no image of a patient" in content["body"][0]["attributes"]["value"]
        asked = [part for part in content["body"] if part["type"] != "markdown"]
        assert len({part["id"] for part in asked}) == len(asked) > 4
