"""Requests carried to a replica, and its answers carried back."""
