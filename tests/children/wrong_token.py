"""A child that forgets the token it was given."""

import os

from loom_sdk import Plugin
from loom_sdk.serve import serve

os.environ["LOOM_TOKEN"] = "not the token"
serve(Plugin)
