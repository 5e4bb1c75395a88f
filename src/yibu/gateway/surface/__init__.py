"""The documented surface: models, health, metrics and documentation pages."""
