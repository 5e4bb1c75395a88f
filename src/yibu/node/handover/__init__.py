"""What one node leaves to the next: sockets, settings, engines."""
