"""yibu: deploy open models on your own machines, one file, one command, one address."""

__version__ = "0.1.0"
