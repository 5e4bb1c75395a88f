MODEL_DIR=/models
vllm serve $MODEL_DIR/Qwen3-32B -tp 4 --port 8001 --reasoning-parser qwen3 --kv-cache-dtype fp8 \
  --rope-scaling '{"rope_type":"yarn","factor":4.0,"original_max_position_embeddings":32768}' \
  --max-model-len 131072 --limit-mm-per-prompt '{"image": 2}' --seed 42 --no-enable-prefix-caching &
CUDA_VISIBLE_DEVICES=4 vllm serve $MODEL_DIR/bge-m3 --task embed --port 8002 --max-num-seqs 16 &
CUDA_VISIBLE_DEVICES=5,6 vllm serve $MODEL_DIR/base -pp 2 --port 8003 --enforce-eager \
  --enable-lora --lora-modules sql=/adapters/sql --max-lora-rank 64 --compilation-config 3 \
  --speculative-config '{"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3}' &
wait
