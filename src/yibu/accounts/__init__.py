"""Accounts: API keys kept in a database, their limits, and what they used."""
