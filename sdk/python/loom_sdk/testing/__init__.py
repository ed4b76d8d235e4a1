"""For the tests of plugins: a host that is none, and a real one.

`FakeHost` drives one plugin object in this process and records what it asks for; no host is
installed or started. `real_host` runs the plugin's folder in a host, in the tier that it will have.
pytest finds the fixtures `fake_host` and `loom_host` by itself where `loom-sdk` is installed.
"""

from .fake_host import FakeHost
from .fake_port import FakePort
from .real_host import real_host

__all__ = ["FakeHost", "FakePort", "real_host"]
