#!/bin/bash
MODE=prod
if [[ "$MODE" == "prod" ]]; then
  HOST=0.0.0.0; LEN=32768
elif [[ $MODE == dev* ]]; then
  HOST=127.0.0.1; LEN=2048
else
  echo "unknown mode $MODE" >&2; exit 1
fi
case "$MODE" in
  prod|staging) UTIL=0.92 ;;
  *) UTIL=0.5 ;;
esac
[ -n "$API_KEY" ] || API_KEY=sk-none-given
if [ "$LEN" -gt 8192 ] && [ -z "$SMALL" ]; then FLAGS="--enable-chunked-prefill --max-num-batched-tokens 4096"; fi
vllm serve /models/m --host $HOST --max-model-len $LEN --gpu-memory-utilization $UTIL --api-key "$API_KEY" $FLAGS
