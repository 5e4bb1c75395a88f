"""Pure policy: what a model needs, what the machine has, what goes where, and why."""
