"""Write the tables of README.md and of pages in docs/ from results/*.json: `make readme`."""

import sys
from pathlib import Path

from leancnn.result_pages import SECTION, table, tables, written

ROOT = Path(__file__).parent.parent
__all__ = ["table", "tables"]

if __name__ == "__main__":
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        before = path.read_text(encoding="utf-8")
        after = written(before, ROOT / "results")
        if SECTION.search(before):
            path.write_text(after, encoding="utf-8")
            state = "as it was" if after == before else "written"
            print(path.relative_to(ROOT), state, file=sys.stderr)
