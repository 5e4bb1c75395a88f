#!/bin/sh
exec /usr/bin/llama-server -m /models/qwen.gguf -c 32768 -np 4 -t 6 -tb 8 -b 2048 -ub 512 -ctk q8_0 \
  -ctv q8_0 -fa on --no-mmap --host 0.0.0.0 --port 8080 --alias qwen --jinja --cont-batching \
  --temp 0.6 --top-k 20 --top-p 0.95 --min-p 0 --metrics --api-key my-key-my-key-1 -ngl 99 --cache-reuse 256 \
  --reasoning-format deepseek --chat-template chatml
