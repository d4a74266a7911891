"""Take the picture of a report that the documentation begins with, from a kept study.

    python benchmarks/report_picture.py benchmarks/results/quickstart docs/report.png

Needs Chromium and Pillow. The page is written anew from the kept scores, so the picture shows what this
version writes.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from keep_study import unpack
from PIL import Image

from adaptkit.report.write import write_report

SIZE = (1280, 1060)
"""Pixels: the answer and the beginning of the deciding table."""
COLOURS = 64
"""Enough for text and flat areas; a third of the bytes."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def take(kept: Path, out: Path) -> None:
    """Write the report of a kept study and photograph its top."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"none of {', '.join(BROWSERS)} is installed")
    with tempfile.TemporaryDirectory() as folder:
        page = write_report(unpack(kept, Path(folder))).html
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        size, profile = f"--window-size={SIZE[0]},{SIZE[1]}", f"--user-data-dir={folder}/profile"
        command = [browser, *flags, size, profile, f"--screenshot={out.absolute()}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(out) as picture:
        picture.convert("RGB").quantize(COLOURS).save(out, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kept", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    take(arguments.kept, arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
