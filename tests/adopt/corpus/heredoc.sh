#!/bin/bash
cat > run_inner.sh <<'EOF'
export CUDA_VISIBLE_DEVICES=1
vllm serve /m/inner --port 8123 "$@"
EOF
chmod +x run_inner.sh
bash run_inner.sh --seed 7
bash <<EOF
vllm serve /m/stdin --port 8124
EOF
