"""The HTTP server: client connections, request heads, one exchange of request and answer."""
