"""What identifies a patient stays in the DICOM file: no cache, output, log or message holds it."""

import json
import logging
import os
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from dicom_files import dicom
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cxrlib.datasets import folder
from cxrlib.errors import CxrError
from cxrlib.io import dicom as dicom_files
from cxrlib.training.callbacks import Checkpoint, TensorBoard
from cxrlib.training.config import TrainConfig
from cxrlib.training.trainer import Trainer

SECRETS = {
    "PatientName": "ZZNAME^Qxv", "PatientID": "ZZPID-77812", "PatientBirthDate": "19310203",
    "OtherPatientIDs": "ZZOTHER-5", "PatientAddress": "ZZSTREET 9", "InstitutionName": "ZZCLINIC Qxv",
    "InstitutionAddress": "ZZCITY", "ReferringPhysicianName": "ZZDOCTOR^A", "AccessionNumber": "ZZACC-1",
    "StudyInstanceUID": "1.2.777.31337", "PatientComments": "ZZCOMMENT cough", "ImageComments": "ZZIMAGE",
    "OperatorsName": "ZZOPERATOR", "StudyDescription": "ZZSTUDY", "PatientTelephoneNumbers": "ZZPHONE",
    "StudyDate": "19991231", "DeviceSerialNumber": "ZZSERIAL", "StationName": "ZZSTATION",
}  # fmt: skip
PRIVATE = "ZZPRIVATE-4"
TOLD = [value.encode() for value in SECRETS.values()] + [PRIVATE.encode(), b"ZZTEXT", b"ZZEXIF"]
SIZE = ["--image-size", "32", "--workers", "1"]


def _film(rng, ill):
    pixels = rng.integers(30, 200, (40, 40)).astype(np.uint8)
    pixels[30:36, 2:8] = 255 if ill else 20
    return pixels


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """90 images of 45 patients under names of no meaning: DICOM, and a PNG and a JPEG with texts in them."""
    root, rng, rows = tmp_path_factory.mktemp("films"), np.random.default_rng(0), []
    for i in range(90):
        ill = (i // 2) % 2
        path = dicom(root, _film(rng, ill), **SECRETS)
        dataset = pydicom.dcmread(path)
        dataset.private_block(0x0011, "ZZPRIVATE", create=True).add_new(0x01, "LO", PRIVATE)
        if i < 12:
            dataset.BurnedInAnnotation = ("YES", "NO", "no")[i % 3] if i else "YES"
        dataset.save_as(root / f"film{i:02d}.dcm", enforce_file_format=True)
        rows.append({"image": f"film{i:02d}.dcm", "label": ill, "patient_id": f"p{i // 2}"})
    path.unlink()
    texts, exif = PngInfo(), Image.Exif()
    texts.add_text("Description", "ZZTEXT")
    exif[0x010E], exif[0x013B] = "ZZEXIF", "ZZEXIF"
    Image.fromarray(_film(rng, 1)).save(root / "film88.png", pnginfo=texts)
    Image.fromarray(_film(rng, 1)).save(root / "film89.jpg", exif=exif)
    rows[88]["image"], rows[89]["image"] = "film88.png", "film89.jpg"
    split = [("train", "val", "test")[i // 2 % 3] for i in range(90)]
    pd.DataFrame(rows).assign(split=split).to_csv(root / "labels.csv", index=False)
    return root


def _leaks(*roots):
    """(file, secret) for every secret in a file's bytes or name below these folders."""
    found = []
    for root in roots:
        for path in (p for p in Path(root).rglob("*") if p.is_file()):
            data = path.read_bytes() + os.fsencode(path.name)
            found += [
                (path.name, secret) for secret in TOLD if secret in data or secret.hex().encode() in data
            ]
    return found


def _said(text):
    return [secret for secret in TOLD if secret.decode() in text]


def test_the_search_finds_what_is_there(films):
    assert {secret for _, secret in _leaks(films)} == set(TOLD)


def test_no_header_reaches_cache_checkpoint_or_event_file(films, tmp_path, monkeypatch, caplog, capfd):
    monkeypatch.setenv("CXRLIB_CACHE", str(tmp_path / "cache"))
    caplog.set_level(logging.DEBUG)
    cohort = folder.load(films, image_size=32, workers=1, progress=False)
    assert not _said(cohort.table.to_csv() + str(cohort.info))
    config = TrainConfig(model="lenet", width=2, epochs=1, batch_size=16, accelerator="cpu")
    Trainer(config, [Checkpoint(), TensorBoard()], tmp_path / "run").fit(cohort)
    assert list((tmp_path / "run" / "tensorboard").iterdir()) and list((tmp_path / "cache").rglob("*.npy"))
    printed = "".join(capfd.readouterr())
    assert not _leaks(tmp_path) and not _said(printed + caplog.text)


def test_patients_are_who_the_table_says_and_never_the_header(films, tmp_path):
    Path(films / "few.csv").write_text("image,label\nfilm00.dcm,0\nfilm01.dcm,1\n")
    with pytest.warns(match="counts as a patient of its own"):
        table, _ = folder.files(films, labels="few.csv")
    (films / "few.csv").unlink()
    assert table["patient_id"].tolist() == ["film00.dcm", "film01.dcm"]


def test_no_header_reaches_page_json_or_terminal_of_an_audit(cxr, films, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("CXRLIB_CACHE", str(tmp_path / "cache"))
    caplog.set_level(logging.DEBUG)
    status, out, err = cxr("audit", films, "--labels", "labels.csv", "--out", tmp_path / "out", *SIZE)
    assert status in (0, 2), err
    assert not _leaks(tmp_path) and not _said(out + err + caplog.text)
    found = json.loads((tmp_path / "out" / "audit.json").read_text(encoding="utf-8"))
    burned = next(one for one in found["findings"] if one["name"] == "burned_in")
    assert burned["severity"] == "warning" and burned["images"] == 4
    assert burned["detail"]["files"] == ["film00.dcm", "film03.dcm", "film06.dcm", "film09.dcm"]
    assert "4 of 88 DICOM files" in " ".join(out.split())
    assert any("76 of 88 DICOM files do not say" in limit for limit in found["limits"])
    page = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert "<li>film00.dcm</li>" in page and "<img" in page
    assert not any(f'alt="{name},' in page for name in burned["detail"]["files"])


def test_an_audit_page_can_be_without_any_picture(cxr, films, tmp_path):
    cxr("audit", films, "--labels", "labels.csv", "--out", tmp_path, "--no-pictures", *SIZE)
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "Burned-in annotations" in page
    for sign in ("<img", "<svg", "<picture", "<canvas", "<object", "image/", "url(", "base64"):
        assert sign not in page, sign
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.html", "audit.json"]  # no thumbnails


def test_a_thread_that_ends_earlier_does_not_let_the_others_speak(caplog):
    caplog.set_level(logging.DEBUG)
    with dicom_files.silent():
        thread = threading.Thread(target=lambda: dicom_files.silent().__enter__())
        thread.start()
        thread.join()
        with dicom_files.silent():
            pass
        pydicom.config.logger.warning("the name of a patient")
    assert caplog.text == ""
    pydicom.config.logger.warning("nothing secret")
    assert "nothing secret" in caplog.text


def test_errors_about_a_file_name_it_and_nothing_of_its_patient(films, tmp_path, caplog):
    data = (films / "film00.dcm").read_bytes()
    caplog.set_level(logging.DEBUG)
    rng, told = np.random.default_rng(0), 0
    for name in range(120):
        damaged = bytearray(data)
        for at in rng.integers(132, 1400, 6):
            damaged[at] = rng.integers(256)
        path = tmp_path / f"bad{name}.dcm"
        path.write_bytes(damaged[: None if name % 2 else int(rng.integers(200, len(data)))])
        try:
            from cxrlib.io.decode import decode

            decode(path)
        except CxrError as error:
            told += 1
            assert path.name in str(error) and not _said(str(error))
    assert told > 20 and not _said(caplog.text)
