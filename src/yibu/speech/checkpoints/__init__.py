"""Model files read without torch, and without running what they hold."""
