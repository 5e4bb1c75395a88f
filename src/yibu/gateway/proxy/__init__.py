"""Relaying requests to replicas and their answers to clients."""
