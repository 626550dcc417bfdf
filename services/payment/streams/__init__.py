"""Streams of what becomes of payments: to browsers as Server-Sent Events, to programs as messages."""
