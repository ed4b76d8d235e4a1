"""Packages: plugins as signed, reproducible archives, and what of them is installed."""

from .archive import Archive, pack, read_archive
from .install import Installer, Proposal
from .installed import check_installed, with_installed
from .lock import Lock, Locked
from .signing import SigningKey, fingerprint

__all__ = [
    "Archive",
    "Installer",
    "Lock",
    "Locked",
    "Proposal",
    "SigningKey",
    "check_installed",
    "fingerprint",
    "pack",
    "read_archive",
    "with_installed",
]
