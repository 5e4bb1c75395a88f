"""Starting one engine, and ending it with everything it left."""
