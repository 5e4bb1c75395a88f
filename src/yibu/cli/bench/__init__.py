"""``yibu bench``: how fast models answer; language models by load, speech models by recordings."""
