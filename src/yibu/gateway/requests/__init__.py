"""From a request's bytes to an engine's request: parsed, validated, normalized."""
