"""Open-i (Indiana University): MeSH terms that a program read in the reports; PNG.

Source: Demner-Fushman et al., JAMIA 2016, doi:10.1093/jamia/ocv080.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd

from cxrlib.datasets.nih_tables import credible_ages, read_table, require_columns, tables_folder
from cxrlib.datasets.tabular import ABOUT, Published, read_terms
from cxrlib.errors import DataError

_COLUMNS = ABOUT["openi"]["columns"]
_LATERAL = {"LL": "L", "RL": "L", "LATERAL": "L", "LARGE LATERAL": "L"}


def _read(root: Path | None) -> pd.DataFrame:
    headers = tables_folder() / "nlmcxr_dicom_metadata.csv.gz"
    raw = read_table(headers).set_index("imageid")
    require_columns(raw, [*_COLUMNS, "Imager Pixel Spacing", "Study Date", "Patient's Birth Date"], headers)
    birth = raw["Patient's Birth Date"] // 10_000
    known = raw[list(_COLUMNS)].rename(columns=_COLUMNS).assign(
        age=credible_ages((raw["Study Date"] // 10_000 - birth).astype(float)),
        pixel_spacing=raw["Imager Pixel Spacing"].str.extract(r"([\d.]+)")[0].astype(float),
    )  # fmt: skip
    table = _reports().join(known, on="image_id")
    table["view"] = table["view"].replace(_LATERAL)
    return pd.concat([table, read_terms(table["terms"], ABOUT["openi"]["findings"])], axis=1)


def _reports() -> pd.DataFrame:
    path, rows = tables_folder() / "NLMCXR_reports.tgz", []
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name.endswith(".xml") else None
                report = None if file is None else ElementTree.parse(file).getroot()
                if report is not None and (uid := report.find("uId")) is not None:
                    terms = "|".join(
                        sorted({term.text or "" for term in report.iterfind(".//MeSH/automatic")})
                    )
                    images = [image.get("id", "") for image in report.iterfind(".//parentImage")]
                    rows += [(name, uid.get("id", ""), f"{name}.png", terms) for name in images]
    except (OSError, tarfile.TarError, ElementTree.ParseError) as error:
        raise DataError(f"{path} cannot be read: {error}", remedy="Reinstall torchxrayvision.") from error
    return pd.DataFrame(rows, columns=["image_id", "patient_id", "file", "terms"])


OPENI = Published("openi", _read)
