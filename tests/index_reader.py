"""A process that opens an index again and again while it is migrated, and counts what is wrong.

python tests/index_reader.py INDEX EXPECTED.json COUNT     # {"answers": ..., "mixed": ..., "models": ...}
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from adaptkit.embed.index import Index


def read(folder: Path, expected: Path, count: int) -> dict[str, int]:
    """Ask until `count` answers are there and two models have answered.

    EXPECTED holds, for the digest of each model: the vectors of the queries, and the ids that are right.
    """
    right = json.loads(expected.read_text())
    answers, mixed, models = 0, 0, set()
    while answers < count or len(models) < 2:
        index = Index.open(folder)
        wanted = right[index.info["model"]]
        found = index.nearest(np.array(wanted["vectors"], np.float32), 3)
        names = [[hit.id for hit in hits] for hits in found]
        mixed += sum(one != other for one, other in zip(names, wanted["ids"], strict=True))
        answers += len(names)
        models.add(index.info["model"])
    return {"answers": answers, "mixed": mixed, "models": len(models)}


if __name__ == "__main__":
    print(json.dumps(read(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
