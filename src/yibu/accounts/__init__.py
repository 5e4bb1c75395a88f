"""Accounts: API keys in a database, their limits, and their usage."""
