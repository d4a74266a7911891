"""Write an export's bill of materials, as CycloneDX 1.6 JSON: what it was made from and what reads it.

The model, the data it learnt from (by digest, never its content), the model it began with, and each Python
package that the export needed, with version and licence. Without a timestamp: two exports of one run are the
same bytes.
"""

from __future__ import annotations

import importlib.metadata
import json
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.requirements import Requirement

from adaptkit.environment import PACKAGES
from adaptkit.export.papers.lineage import Foreign, Training
from adaptkit.export.papers.provenance import Provenance, file_digests
from adaptkit.run import digest, write_json
from adaptkit.version import __version__

BILL = "sbom.cdx.json"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "cyclonedx.org")


def write_bill(folder: Path, provenance: Provenance) -> None:
    """Write sbom.cdx.json."""
    model = _model(folder, provenance)
    materials = [*_data(provenance.lineage.trainings), *_foreign_models(provenance.lineage.foreign)]
    packages = [_package(name) for name in sorted(required_packages())]
    versions = [f"{package.name}{package.version}" for package in packages]
    serial = uuid.uuid5(_NAMESPACE, digest([provenance.as_json(), versions]))
    about = BomMetaData(component=model, tools=ToolRepository(components=[_tool()]))
    bom = Bom(components=[*materials, *packages], metadata=about, serial_number=serial)
    bom.register_dependency(model, [*materials, *packages])
    bill = json.loads(make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string())
    del bill["metadata"]["timestamp"]
    write_json(folder / BILL, bill)


def required_packages() -> set[str]:
    """Find adaptkit's installed requirements and theirs, without extras.

    Where it runs from its source alone, these are a fixed few.
    """
    packages: set[str] = set()
    left = [*_requirements("adaptkit")] or list(PACKAGES[1:])
    while left:
        name = left.pop().lower().replace("_", "-")
        if name not in packages and _installed(name):
            packages.add(name)
            left.extend(_requirements(name))
    return packages


def _requirements(package: str) -> Iterator[str]:
    try:
        stated = importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return
    for text in stated:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement.name


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _model(folder: Path, provenance: Provenance) -> Component:
    """Describe the exported model, with the digest of each weights file."""
    export = provenance.export
    files = file_digests(folder).items()
    weights = {name: entry["sha256"] for name, entry in files if name.endswith(".safetensors")}
    stated = {"kind", "format", "needs", "method", "base", "arm", "study", "task"}
    facts = export.model_dump(include=stated, exclude_none=True)
    facts |= {f"sha256 of {name}": sha256 for name, sha256 in weights.items()}
    return Component(
        name=export.name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        version=digest(weights)[:12],
        bom_ref="model",
        licenses=[DisjunctiveLicense(name=provenance.licence)],
        properties=[
            Property(name=f"adaptkit:{key.replace(' ', '_')}", value=str(value))
            for key, value in facts.items()
        ],
    )


def _data(trainings: Sequence[Training]) -> Iterator[Component]:
    """Describe each data set of every training, held-out sets too, as a component."""
    for training in trainings:
        for part, split in training.splits.items():
            yield Component(
                name=f"{training.run}: {part}",
                type=ComponentType.DATA,
                version=split.digest[:12],
                bom_ref=f"data:{training.run}:{part}",
                description=f"{split.documents} documents, {split.num_bytes} bytes",
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=split.digest)],
            )


def _foreign_models(models: Sequence[Foreign]) -> Iterator[Component]:
    """Describe each model that was not trained here as a component."""
    for model in models:
        version: str | None = None
        if model.weights:
            version = digest(model.weights)[:12]
        yield Component(
            name=model.name,
            type=ComponentType.MACHINE_LEARNING_MODEL,
            version=version,
            bom_ref=f"{model.role}:{model.name}",
        )


def _package(name: str) -> Component:
    """Describe one installed package, with its licence where the package states one."""
    metadata = importlib.metadata.metadata(name).json
    version, licences = str(metadata["version"]), []
    if licence := metadata.get("license_expression"):
        licences.append(LicenseExpression(str(licence)))
    return Component(
        name=name,
        type=ComponentType.LIBRARY,
        version=version,
        bom_ref=f"pypi:{name}",
        purl=PackageURL("pypi", name=name, version=version.partition("+")[0]),
        licenses=licences,
    )


def _tool() -> Component:
    """Describe adaptkit itself."""
    return Component(
        name="adaptkit", type=ComponentType.APPLICATION, version=__version__, bom_ref="tool:adaptkit"
    )
