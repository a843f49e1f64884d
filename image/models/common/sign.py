#!/usr/bin/env python3
"""Signs a bundle, or makes the key pair to sign with.

In: a bundle folder with a finished bundle.toml, a private key (ed25519, PEM). Out: bundle.sig, 64 raw bytes over the
exact bytes of bundle.toml; with --public also the public key as one line of hex.
Promise: the private key is created readable by its owner alone, is never overwritten, and never enters the bundle.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tomllib
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def new_key(path: Path) -> Ed25519PrivateKey:
    """Makes a key at `path`, mode 600; refuses to replace one."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
    return key


def read_key(path: Path) -> Ed25519PrivateKey:
    """Reads an ed25519 private key."""
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise SystemExit(f"{path} is not an ed25519 key")
    return key


def check_hashes(bundle: Path) -> bytes:
    """The bytes of bundle.toml, after every file has proved to be the one it names and no other file is there."""
    manifest = (bundle / "bundle.toml").read_bytes()
    named = tomllib.loads(manifest.decode())["files"]
    present = {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}
    stray = present - set(named) - {"bundle.toml", "bundle.sig"}
    if stray:
        raise SystemExit(f"not named in bundle.toml: {sorted(stray)}")
    for name, expected in named.items():
        if hashlib.sha256((bundle / name).read_bytes()).hexdigest() != expected:
            raise SystemExit(f"{name} is not the file that bundle.toml names")
    return manifest


def main() -> None:
    """Signs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--key", type=Path, required=True, help="private key, PEM; kept outside the repository")
    parser.add_argument("--new-key", action="store_true", help="make the key first")
    parser.add_argument("--bundle", type=Path, help="bundle folder to sign")
    parser.add_argument("--public", type=Path, help="write the public key here")
    options = parser.parse_args()
    key = new_key(options.key) if options.new_key else read_key(options.key)
    if options.public:
        raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        options.public.write_text(f"# ed25519, 32 bytes: whose bundles this appliance serves.\n{raw.hex()}\n")
    if options.bundle:
        manifest = check_hashes(options.bundle)
        signature = key.sign(manifest)
        key.public_key().verify(signature, manifest)
        (options.bundle / "bundle.sig").write_bytes(signature)
        print(f"signed {options.bundle / 'bundle.toml'}: {hashlib.sha256(manifest).hexdigest()}")


if __name__ == "__main__":
    main()
