"""The HTTP side: routes, forms and uploads."""
