"""Ollama's API, for tools that speak only that: translated onto the same operations.

https://docs.ollama.com/api has the fields. A request becomes one of OpenAI's before it is
validated, and the answer is translated on its way out, so that keys, limits, engines and metrics are
those of every other request.
"""
