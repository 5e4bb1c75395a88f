"""All models of a node: what is wanted, what runs, and who waits for it."""
