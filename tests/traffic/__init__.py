"""Clients that use a system without a pause while it is disturbed, and what must be true of it afterwards."""
