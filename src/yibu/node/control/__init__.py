"""The control socket: how the command line talks to the node."""
