"""API keys: how a partner's program acts for a user without logging in."""
