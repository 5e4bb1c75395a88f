"""What the command line and the console both do: read entries, plan, check, compare, find logs."""
