"""Fills a card's template: every number in a card comes from results.json.

In: a text with `$names` and the nested results. Out: the text. A name is the path in the results joined with `_`:
`cross_validation.auc_95[0]` is `$cross_validation_auc_95_0`, with three digits; `_pc` at its end gives a share in
percent with one digit.
Promise: a name that the results do not hold is an error, never a blank.
"""

from __future__ import annotations

import re
from pathlib import Path
from string import Template


def flatten(value: object, prefix: str = "") -> dict[str, str]:
    """Nested results -> names: percentages as `name_pc`, numbers to three digits as `name`."""
    out: dict[str, str] = {}
    if isinstance(value, dict):
        for key, inner in value.items():
            out |= flatten(inner, f"{prefix}_{_plain(key)}" if prefix else _plain(key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            out |= flatten(inner, f"{prefix}_{index}")
    elif isinstance(value, float):
        out[prefix], out[f"{prefix}_pc"] = f"{value:.3f}", f"{100 * value:.1f}"
    else:
        out[prefix] = str(value)
    return out


def _plain(key: object) -> str:
    return re.sub(r"\W+", "_", str(key)).strip("_")


def fill(template: Path, results: dict, **more: str) -> str:
    """The card; `more` gives names that are not plain numbers (tables, numbers with other digits)."""
    return Template(template.read_text()).substitute(flatten(results) | more)


def table(head: list[str], rows: list[list[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)
