"""All models of a node: what is desired, what runs, and which requests wait."""
