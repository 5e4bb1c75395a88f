"""Reading model files without torch, and without running what they hold."""
