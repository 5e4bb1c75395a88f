"""The HTTP edge: OpenAI's API in front of whatever engine serves the model."""
