"""Typed clients of capabilities, written from their manifests."""

from .python_module import module_of
from .wanted import Offered, known_offers, wanted_by, wanted_named

__all__ = ["Offered", "known_offers", "module_of", "wanted_by", "wanted_named"]
