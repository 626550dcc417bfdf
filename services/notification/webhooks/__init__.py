"""Webhooks: where users want the events of their payments to be posted, and the posting (Standard Webhooks)."""
