"""HTTP: routes, forms and uploads."""
