"""The headers of weight files: what a GGUF or safetensors file says of itself."""
