"""What everybody did, out of the audit trails of all services."""
