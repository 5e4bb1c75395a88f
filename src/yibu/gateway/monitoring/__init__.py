"""The metrics page: the gateway's numbers, the fleet's, and the engines'."""
