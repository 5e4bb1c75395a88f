"""Thin verbs over the other rooms, and one renderer."""
