"""``yibu bench``: language models under load, speech models on recordings."""
