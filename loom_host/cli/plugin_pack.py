"""`loom plugin pack` and `loom plugin key`: signed archives and the keys that sign them."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from loom_host.packages import SigningKey, fingerprint, pack, read_archive
from loom_host.packages.archive import SUFFIX
from loom_host.packages.signing import Rotation
from loom_host.packages.trust import revocation
from loom_sdk.errors import ConfigError

from .common import add_json, print_json, size

ROTATIONS = ".rotations"
"""Beside a key: the statements by which earlier keys handed over to it."""


def add_parser(verbs: Any) -> None:
    packing = verbs.add_parser("pack", help="make a signed archive of a plugin's folder")
    packing.add_argument("folder")
    packing.add_argument("-o", "--out", metavar="FILE", help="default: NAME-VERSION.loom")
    _add_key(packing)
    add_json(packing)
    packing.set_defaults(handler=run_pack)
    key = verbs.add_parser("key", help="keys that sign packages")
    key_verbs = key.add_subparsers(dest="key_verb", metavar="VERB", required=True)
    for name, handler, help_ in (
        ("new", run_new, "make a key, of which a lost one cannot be had back"),
        ("show", run_show, "print the public key and its fingerprint"),
        ("rotate", run_rotate, "make a new key that the present one hands over to"),
        ("revoke", run_revoke, "print the statement that nobody may trust the key any more"),
    ):
        verb = key_verbs.add_parser(name, help=help_)
        _add_key(verb)
        add_json(verb)
        verb.set_defaults(handler=handler)
        if name == "revoke":
            verb.add_argument("--reason", required=True)


def _add_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key", metavar="FILE", type=Path, default=default_key(),
        help="the private key; default $LOOM_SIGNING_KEY, else %(default)s",
    )  # fmt: skip


def default_key() -> Path:
    """`$LOOM_SIGNING_KEY`, else `loom/signing.key` in the user's configuration folder."""
    if path := os.environ.get("LOOM_SIGNING_KEY"):
        return Path(path)
    config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(config) / "loom" / "signing.key"


def run_pack(arguments: argparse.Namespace) -> int:
    key = SigningKey.load(arguments.key)
    data = pack(Path(arguments.folder), key, _rotations(arguments.key))
    archive = read_archive(data, arguments.folder)
    name = archive.id.partition("/")[2]
    out = Path(arguments.out or f"{name}-{archive.version}{SUFFIX}")
    out.write_bytes(data)
    row = {
        "path": str(out), "id": archive.id, "version": archive.version, "bytes": len(data),
        "files": len(archive.files), "sha256": hashlib.sha256(data).hexdigest(), "key": key.public,
    }  # fmt: skip
    if arguments.json:
        print_json(row)
    else:
        print(
            f"{out}: {archive.id} {archive.version}, {len(archive.files)} files, "
            f"{size(len(data))}, signed with {fingerprint(key.public)}"
        )
    return 0


def run_new(arguments: argparse.Namespace) -> int:
    return _show(SigningKey.create(arguments.key), arguments)


def run_show(arguments: argparse.Namespace) -> int:
    return _show(SigningKey.load(arguments.key), arguments)


def _show(key: SigningKey, arguments: argparse.Namespace) -> int:
    if arguments.json:
        row = {"path": str(arguments.key), "key": key.public}
        print_json(row | {"fingerprint": fingerprint(key.public)})
    else:
        print(f"{arguments.key}: {key.public} ({fingerprint(key.public)})")
    return 0


def run_rotate(arguments: argparse.Namespace) -> int:
    """The old key stays beside the new one, as `KEY.FINGERPRINT`."""
    path: Path = arguments.key
    old, chain = SigningKey.load(path), _rotations(path)
    kept = path.with_name(f"{path.name}.{fingerprint(old.public)}")
    path.rename(kept)
    try:
        new = SigningKey.create(path)
    except BaseException:
        kept.rename(path)
        raise
    steps = [*chain, old.hand_over(new.public)]
    listed = [[step.old, step.new, step.signature] for step in steps]
    path.with_name(path.name + ROTATIONS).write_text(json.dumps(listed) + "\n")
    print(f"{kept} hands over to {path}; packages signed from now on say so", file=sys.stderr)
    return _show(new, arguments)


def run_revoke(arguments: argparse.Namespace) -> int:
    """For `revoked` in an index, or `loom plugin revoked FILE`."""
    print_json([revocation(SigningKey.load(arguments.key), arguments.reason)])
    return 0


def _rotations(key: Path) -> tuple[Rotation, ...]:
    path = key.with_name(key.name + ROTATIONS)
    if not path.is_file():
        return ()
    try:
        return tuple(Rotation(*map(str, step)) for step in json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is damaged: restore it, or remove it") from error
