"""Live speech: websockets between clients and engines."""
