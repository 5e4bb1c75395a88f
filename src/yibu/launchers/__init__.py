"""Programs that run inside engine environments. Each is a module of its own, started with
``python -m``; they import the standard library, ``yibu.errors`` and the engine, nothing else."""
