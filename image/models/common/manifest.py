"""Writes bundle.toml (schema 2).

In: the manifest as nested dicts and lists, without `[files]`. Out: TOML text with the SHA-256 of every other file.
Promise: what is written reads back equal, and names every file of the bundle.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from pathlib import Path

from common.export import digest

UNLISTED = ("bundle.toml", "bundle.sig")
BYTES_MAX = 8_000_000
"""Greatest size of a bundle."""


def render(table: dict) -> str:
    """TOML text of nested dicts. A list of dicts becomes an array of tables, except under the keys in `INLINE`."""
    lines: list[str] = []
    _table(table, "", lines)
    return "\n".join(lines).strip() + "\n"


INLINE = ("code", "family", "classes", "reasons", "required")
"""Keys whose tables stand on one line each."""


def _table(table: dict, path: str, lines: list[str]) -> None:
    later = []
    for key, value in table.items():
        if key not in INLINE and (isinstance(value, dict) or _is_tables(value)):
            later.append((key, value))
        elif key == "#":
            lines.extend(f"# {line}" for line in value.splitlines())
        elif _is_tables(value):
            lines.append(f"{_key(key)} = [")
            lines.extend(f"  {_value(one)}," for one in value)
            lines.append("]")
        else:
            lines.append(f"{_key(key)} = {_value(value)}")
    for key, value in later:
        name = f"{path}.{_key(key)}" if path else _key(key)
        for one in [value] if isinstance(value, dict) else value:
            lines += ["", f"[{name}]" if isinstance(value, dict) else f"[[{name}]]"]
            _table(one, name, lines)


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a manifest holds finite numbers only")
        return repr(round(value, 6))
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }"
    raise TypeError(f"not a manifest value: {value!r}")


def write(bundle: Path, content: dict) -> Path:
    """Adds `[files]`, writes bundle.toml, removes a stale signature; refuses a bundle beyond `BYTES_MAX`."""
    present = sorted(p for p in bundle.rglob("*") if p.is_file() and p.name not in UNLISTED)
    size = sum(p.stat().st_size for p in present)
    if size > BYTES_MAX:
        raise SystemExit(f"the bundle has {size} bytes, {BYTES_MAX} are allowed")
    whole = {**content, "files": {p.relative_to(bundle).as_posix(): digest(p) for p in present}}
    text = render(whole)
    tomllib.loads(text)
    (bundle / "bundle.sig").unlink(missing_ok=True)
    (bundle / "bundle.toml").write_text(text)
    return bundle / "bundle.toml"


RETINA_SOP_CLASSES = [
    "1.2.840.10008.5.1.4.1.1.77.1.5.1",  # Ophthalmic Photography 8 Bit Image Storage
    "1.2.840.10008.5.1.4.1.1.77.1.4",  # VL Photographic Image Storage
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture Image Storage
]

COLOUR_PHOTOMETRICS = ["RGB", "YBR_FULL_422", "YBR_FULL", "YBR_RCT", "YBR_ICT", "PALETTE COLOR"]

ALGORITHM_FAMILY = {"scheme": "DCM", "value": "123110", "meaning": "Artificial Intelligence"}
