"""The bill of materials: what an exported model was made from and what reads it, as CycloneDX 1.6 JSON.

The model, the data it learnt from (by digest, never its content), the model it began with, and each Python
package that the export needed, with version and licence. Without a timestamp: two exports of one run are the
same bytes.
"""

from __future__ import annotations

import importlib.metadata
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement

from adaptkit.environment import PACKAGES
from adaptkit.export.papers.lineage import file_digests
from adaptkit.export.source import EXPORTED
from adaptkit.run import digest, write_json
from adaptkit.version import __version__

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

BILL = "sbom.cdx.json"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "cyclonedx.org")


def write_bill(folder: Path, record: dict[str, Any], licence: str) -> None:
    """Write `sbom.cdx.json`.

    Args:
        record: the manifest without its file list.
        licence: tag of the model's licence.
    """
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.tool import ToolRepository
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion

    model = _model(folder, record, licence)
    materials = [*_data(record["lineage"]), *_bases(record["lineage"])]
    packages = [_package(name) for name in sorted(required_packages())]
    serial = uuid.uuid5(_NAMESPACE, digest([record, [p.name + str(p.version) for p in packages]]))
    about = BomMetaData(component=model, tools=ToolRepository(components=[_tool()]))
    bom = Bom(components=[*materials, *packages], metadata=about, serial_number=serial)
    bom.register_dependency(model, [*materials, *packages])
    told = json.loads(make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string())
    del told["metadata"]["timestamp"]
    write_json(folder / BILL, told)


def required_packages() -> set[str]:
    """adaptkit's installed requirements and theirs, without extras; a fixed few where it runs from its source
    alone."""
    found: set[str] = set()
    left = [*_requirements("adaptkit")] or list(PACKAGES[1:])
    while left:
        name = left.pop().lower().replace("_", "-")
        if name not in found and _installed(name):
            found.add(name)
            left.extend(_requirements(name))
    return found


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


def _model(folder: Path, record: dict[str, Any], licence: str) -> Component:
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import DisjunctiveLicense

    told = record[EXPORTED]
    weights = {
        name: entry["sha256"] for name, entry in file_digests(folder).items() if name.endswith(".safetensors")
    }
    kept = ("kind", "format", "needs", "method", "base", "arm", "study", "task")
    facts = {key: told[key] for key in kept if told[key] is not None} | {
        f"sha256 of {k}": v for k, v in weights.items()
    }
    return Component(
        name=told["name"],
        type=ComponentType.MACHINE_LEARNING_MODEL,
        version=digest(weights)[:12],
        bom_ref="model",
        licenses=[DisjunctiveLicense(name=licence)],
        properties=[
            Property(name=f"adaptkit:{key.replace(' ', '_')}", value=str(value))
            for key, value in facts.items()
        ],
    )


def _data(lineage: list[dict[str, Any]]) -> Iterator[Component]:
    """One component per data set of every training, held-out sets too."""
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    for facts in lineage:
        for part, data in facts.get("data", {}).items():
            yield Component(
                name=f"{facts['run']}: {part}",
                type=ComponentType.DATA,
                version=str(data["digest"])[:12],
                bom_ref=f"data:{facts['run']}:{part}",
                description=f"{data['documents']} documents, {data['num_bytes']} bytes",
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=data["digest"])]
                if data["digest"]
                else [],
            )


def _bases(lineage: list[dict[str, Any]]) -> Iterator[Component]:
    from cyclonedx.model.component import Component, ComponentType

    for facts in lineage:
        for role in {"base", "teacher"} & (facts.keys() if "run" not in facts else set()):
            version = digest(facts["weights"])[:12] if facts["weights"] else None
            kind = ComponentType.MACHINE_LEARNING_MODEL
            yield Component(name=facts[role], type=kind, version=version, bom_ref=f"{role}:{facts[role]}")


def _package(name: str) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import LicenseExpression
    from packageurl import PackageURL

    metadata = importlib.metadata.metadata(name)
    version, licence = metadata["Version"], metadata.get("License-Expression")
    return Component(
        name=name,
        type=ComponentType.LIBRARY,
        version=version,
        bom_ref=f"pypi:{name}",
        purl=PackageURL("pypi", name=name, version=version.partition("+")[0]),
        licenses=[LicenseExpression(licence)] if licence else [],
    )


def _tool() -> Component:
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        name="adaptkit", type=ComponentType.APPLICATION, version=__version__, bom_ref="tool:adaptkit"
    )
