"""The speech engine: a complete OpenAI-compatible audio server, run in its own environment.

Nothing else in yibu imports this package; it is launched by its command line like any engine.
"""
