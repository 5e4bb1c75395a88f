python -m sglang.launch_server --model-path /models/Qwen3-8B --tp 2 --mem-fraction-static 0.85 \
  --context-length 32768 --max-running-requests 64 --host 0.0.0.0 --port 30000 --api-key sk-sglang-key-1 \
  --reasoning-parser qwen3 --tool-call-parser qwen25 --schedule-policy lpm --chunked-prefill-size 4096 \
  --enable-metrics --disable-radix-cache --attention-backend flashinfer --log-level warning
