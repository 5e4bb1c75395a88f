"""The metrics page: the gateway's own numbers, the fleet's, and the engines'."""
