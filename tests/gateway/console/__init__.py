"""The console, over real sockets."""
