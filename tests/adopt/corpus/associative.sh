#!/bin/bash
declare -A PORTS=([chat]=8001 [embed]=8002)
PORTS[rank]=8003
vllm serve /m/chat --port ${PORTS[chat]}
vllm serve /m/rank --port "${PORTS[rank]}"
