"""From the bytes of a request to what an engine is sent: parsed, validated, normalized."""
