"""The HTTP/1.1 client towards engines: the only one of the node and of the gateway."""
