"""Thin verbs over the other packages, and one renderer."""
