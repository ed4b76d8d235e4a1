"""Events from publishers to subscriptions: queues, backpressure, acknowledgement."""

from .dead_letter import DEAD_LETTER
from .delivery import ATTEMPTS_MAX, Delivery
from .inbox import CAPACITY
from .memory import MemoryBus
from .subscription import Subscription

__all__ = ["ATTEMPTS_MAX", "CAPACITY", "DEAD_LETTER", "Delivery", "MemoryBus", "Subscription"]
