"""The machine: processors, memory, GPUs, ports, and its process table."""
