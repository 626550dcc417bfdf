"""Verification: reads documents off the request, and decides whether they are accepted."""
