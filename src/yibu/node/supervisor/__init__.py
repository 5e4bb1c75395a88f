"""One replica: watched, put to sleep, restarted and stopped by the one task that owns it."""
