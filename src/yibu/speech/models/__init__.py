"""One file a family of models: each loads a directory into a ``Recognizer``."""
