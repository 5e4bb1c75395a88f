"""One module a group of verbs; each registers its own on the app."""
