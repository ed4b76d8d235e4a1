"""Events from publishers to subscriptions: queues, backpressure, acknowledgement."""

from .delivery import ATTEMPTS_MAX, Delivery
from .inbox import CAPACITY
from .memory import DEAD_LETTER, MemoryBus
from .subscription import Subscription

__all__ = ["ATTEMPTS_MAX", "CAPACITY", "DEAD_LETTER", "Delivery", "MemoryBus", "Subscription"]
