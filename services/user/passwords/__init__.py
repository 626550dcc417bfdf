"""Passwords: hashed, guessed at only so often, changed by who knows the old one, reset by who reads the user's mail."""
