tmux new-session -d -s llm
tmux send-keys -t llm "export CUDA_VISIBLE_DEVICES=3" C-m
tmux send-keys -t llm "vllm serve /m/DeepSeek-R1-Distill-Qwen-7B --port 8004 --dtype bfloat16 --block-size 32" C-m
