"""Live speech: audio recognized while it is spoken, over websockets."""
