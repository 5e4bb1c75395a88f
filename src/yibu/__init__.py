"""yibu: deploy open models on your own machines, one file, one command, one door."""

__version__ = "0.1.0"
