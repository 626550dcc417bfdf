"""Where importers look until they are changed."""

from services.runtime.bus import MESSAGE_ID, Bus, open_bus
from services.runtime.consumer import consume
from services.runtime.outbox import Outbox

__all__ = ["MESSAGE_ID", "Bus", "Outbox", "consume", "open_bus"]
