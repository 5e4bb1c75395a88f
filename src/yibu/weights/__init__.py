"""Headers of weight files: GGUF and safetensors."""
