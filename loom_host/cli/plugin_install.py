"""`loom plugin install`, `remove`, `trust` and `revoked`: other people's packages."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from loom_host.control import require_free
from loom_host.discovery import find_manifests, first_party_root
from loom_host.packages import Installer, Proposal, fingerprint
from loom_host.packages.sources import fetch
from loom_host.packages.trust import read_revocations, take_revocations
from loom_sdk.errors import ConfigError, PermissionDenied

from .common import add_json, print_json, settings_of


def add_parser(verbs: Any) -> None:
    install = verbs.add_parser("install", help="install a package, after its signature is checked")
    install.add_argument(
        "package", nargs="?",
        help="a file, an https URL, or PUBLISHER/NAME[@VERSION]; without one: all that loom.lock "
        "has and that is not here",
    )  # fmt: skip
    install.add_argument("--index", default="", metavar="URL", help="lists what PUBLISHER/NAME is")
    install.add_argument(
        "--yes", action="store_true",
        help="do not ask; fails where more is asked for than loom.lock has",
    )  # fmt: skip
    install.add_argument(
        "--downgrade", action="store_true", help="also where a higher version was seen"
    )
    add_json(install)
    install.set_defaults(handler=run_install)
    remove = verbs.add_parser("remove", help="take an installed plugin away, with its data")
    remove.add_argument("name")
    add_json(remove)
    remove.set_defaults(handler=run_remove)
    trust = verbs.add_parser("trust", help="pin a key to a publisher, in place of another")
    trust.add_argument("publisher")
    trust.add_argument("public_key")
    trust.set_defaults(handler=run_trust)
    revoked = verbs.add_parser("revoked", help="trust no more the keys that a file revokes")
    revoked.add_argument("file")
    add_json(revoked)
    revoked.set_defaults(handler=run_revoked)


def run_install(arguments: argparse.Namespace) -> int:
    installer = Installer(settings_of(arguments.config))
    if arguments.package is None:
        return _restore(installer, arguments)
    fetched = fetch(arguments.package, arguments.index, _progress)
    proposal = installer.propose(fetched, downgrade=arguments.downgrade)
    _check_name(proposal)
    for line in proposal.words():
        print(line, file=sys.stderr)
    if proposal.needs_consent:
        _ask(proposal, arguments)
    folder = installer.accept(proposal)
    if arguments.json:
        locked = proposal.locked
        print_json(
            {
                "name": proposal.manifest.name, "id": locked.id, "version": locked.version,
                "folder": str(folder), "grants": locked.grants, "key": locked.key,
                "lock": str(installer.lock.path),
            }
        )  # fmt: skip
    else:
        print(f"installed {proposal.manifest.name} {proposal.locked.version}")
    return 0


def _restore(installer: Installer, arguments: argparse.Namespace) -> int:
    restored = []
    for name, locked in installer.lock.plugins.items():
        if not installer.store.folder(locked).is_dir():
            installer.restore(name, fetch(locked.source, arguments.index, _progress))
            restored.append(name)
    if arguments.json:
        print_json({"restored": restored})
    else:
        print(f"installed from loom.lock: {', '.join(restored) or 'nothing was missing'}")
    return 0


def _check_name(proposal: Proposal) -> None:
    """Raises ConfigError where it would stand in for one of Loom's own."""
    name = proposal.manifest.name
    own = find_manifests([first_party_root()]).get(name)
    if own is not None:
        raise ConfigError(
            f"{proposal.locked.id} is not installed: a plugin {name!r} comes with Loom ({own.id}); "
            "its author must choose another name"
        )


def _ask(proposal: Proposal, arguments: argparse.Namespace) -> None:
    """Raises PermissionDenied where there is no consent."""
    name = proposal.manifest.name
    asked = "; ".join(f"{kind}: {', '.join(values)}" for kind, values in proposal.more.items())
    if arguments.yes:
        raise PermissionDenied(
            f"{name} asks for more than loom.lock has ({asked or 'a new publisher'}): install it "
            "once without --yes, and keep loom.lock under version control",
            permission="install",
        )
    if not sys.stdin.isatty():
        raise PermissionDenied(
            f"{name} is not installed: nobody is here to consent ({asked or 'a new publisher'})",
            permission="install",
        )
    if input("Install it and grant this? [y/N] ").strip().lower() not in ("y", "yes"):
        raise PermissionDenied(
            f"{name} is not installed: you did not consent", permission="install"
        )


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        whole = f" of {total / 1e6:.1f}" if total else ""
        print(f"\r{done / 1e6:.1f}{whole} MB", end="", file=sys.stderr, flush=True)


async def run_remove(arguments: argparse.Namespace) -> int:
    from loom_host.agents.kept import Kept  # with the broker: not for every command

    settings = settings_of(arguments.config)
    await require_free(settings.host.runtime_dir)
    kept = Kept(settings.host.data_dir)
    created = [name for name, (own, _) in kept.load().items() if own.plugin == arguments.name]
    theirs = [name for name, own in settings.agents.items() if own.plugin == arguments.name]
    locked = Installer(settings).remove(arguments.name, [*created, *theirs])
    for name in created:
        kept.drop(name)
    if arguments.json:
        print_json({"name": arguments.name, "id": locked.id, "version": locked.version})
    else:
        print(f"removed {arguments.name} {locked.version}")
    return 0


def run_trust(arguments: argparse.Namespace) -> int:
    Installer(settings_of(arguments.config)).trust(arguments.publisher, arguments.public_key)
    print(f"{arguments.publisher}/ is now {fingerprint(arguments.public_key)}")
    return 0


def run_revoked(arguments: argparse.Namespace) -> int:
    installer, path = Installer(settings_of(arguments.config)), Path(arguments.file)
    try:
        statements = read_revocations(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    new = take_revocations(installer.lock, statements, str(path))
    installer.lock.save()
    names = [name for name, p in installer.lock.plugins.items() if p.key in installer.lock.revoked]
    if arguments.json:
        print_json({"revoked": new, "installed_with_them": names})
        return 0
    print(f"{len(new)} key(s) are trusted no more")
    if names:
        print(f"installed and signed by them: {', '.join(names)}", file=sys.stderr)
    return 0
