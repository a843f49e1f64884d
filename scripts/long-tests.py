"""The table at the end of `make test-long`: its longest tests and every one that failed.

In: the JUnit file that nextest writes. Out: one line a test, longest first, then totals.
Promise: reads only; without the file it says so and fails nothing, for the run itself has its own exit status.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

SHOWN_FROM_S = 20.0
"""Tests at least so long are shown."""


def main(path: Path) -> None:
    if not path.is_file():
        print("no test was run: nothing to show")
        return
    rows = []
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        failed = case.find("failure") is not None or case.find("error") is not None
        rows.append((float(case.get("time", "0")), failed, f"{case.get('classname', '')} {case.get('name', '')}"))
    rows.sort(reverse=True)
    print(f"{'seconds':>8}  result  test")
    for seconds, failed, name in rows:
        if failed or seconds >= SHOWN_FROM_S:
            print(f"{seconds:8.1f}  {'FAILED' if failed else 'ok':6}  {name}")
    failures = sum(failed for _, failed, _ in rows)
    print(f"{len(rows)} tests, {failures} failed, {sum(row[0] for row in rows) / 60:.1f} min of tests; shown from {SHOWN_FROM_S:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
