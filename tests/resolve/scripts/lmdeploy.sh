CUDA_VISIBLE_DEVICES=0,1 lmdeploy serve api_server /models/internlm2_5-7b-chat --server-port 23333 \
  --tp 2 --session-len 32768 --max-batch-size 64 --cache-max-entry-count 0.5 --model-name internlm \
  --backend turbomind --quant-policy 8 --enable-prefix-caching --api-keys sk-lmdeploy-key-1
