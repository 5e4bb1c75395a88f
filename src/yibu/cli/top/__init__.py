"""``yibu top``: what runs and how much it does, read again and again."""
