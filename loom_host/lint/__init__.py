"""What can be told of a plugin from its folder alone, without running it: findings by rule."""

from .finding import RULES, Finding
from .folder import check_folder

__all__ = ["RULES", "Finding", "check_folder"]
