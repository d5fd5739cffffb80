"""Writes all pages below a directory."""

from __future__ import annotations

import sys
from pathlib import Path

from manuals import commands, documents, tree


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print("usage: scripts/manpages DIRECTORY", file=sys.stderr)
        return 2
    directory = Path(sys.argv[1])
    for page in (commands.page(), tree.page(), documents.page()):
        file = directory / f"man{page.section}" / f"{page.name}.{page.section}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page.text())
        print(file)
    return 0


sys.exit(main())
