"""The bill of materials fits the CycloneDX schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adaptkit.export.driver import Options, export
from adaptkit.export.resolve import resolve
from adaptkit.run import Run


def test_the_bill_of_materials_fits_the_cyclonedx_schema(mood: Run, tmp_path: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    pytest.importorskip("jsonschema")
    folder = export(resolve(mood.path), "bf16", Options(out=tmp_path / "out")).folder
    text = (folder / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    kinds = [component["type"] for component in bill["components"]]
    names = {component["name"] for component in bill["components"]}
    assert bill["metadata"]["component"]["type"] == "machine-learning-model" and kinds.count("data") == 5
    assert {"torch", "transformers", "safetensors"} <= names
