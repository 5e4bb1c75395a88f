"""``yibu support``: one archive for a bug report, without secrets, with a list of what it holds."""
