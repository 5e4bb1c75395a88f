"""Sources and the store: from a source string to verified files on this machine's disk."""
