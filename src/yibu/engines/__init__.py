"""Pure descriptions of engines: does one serve this model, and with what command."""
