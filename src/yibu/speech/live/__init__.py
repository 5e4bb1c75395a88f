"""Live speech: audio that is recognized while it is spoken, over websockets."""
