"""Owns child processes: replicas, the fleet, logs, hardware, and state that outlives a restart."""
