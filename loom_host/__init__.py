"""Loom: a plugin host for voice and AI agents."""

from loom_sdk import Event, QoS, Result

from .config import Settings, load_settings
from .host import Host

__all__ = ["Event", "Host", "QoS", "Result", "Settings", "load_settings"]
