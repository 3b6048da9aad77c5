"""Fixtures of the commands' tests."""

import json
from importlib import resources

import jsonschema
import pytest


@pytest.fixture(scope="session")
def schema():
    text = resources.files("cxrlib.audit").joinpath("data/audit.schema.json").read_text(encoding="utf-8")
    checker = jsonschema.Draft202012Validator(json.loads(text))
    checker.check_schema(checker.schema)
    return checker
