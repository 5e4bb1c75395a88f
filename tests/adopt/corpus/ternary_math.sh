#!/bin/bash
TP=4
(( TP > 2 )) && UTIL=0.95 || UTIL=0.8
SEQS=$(( TP * 64 % 100 ))
let LEN=SEQS*100
vllm serve /m -tp $TP --gpu-memory-utilization $UTIL --max-num-seqs $SEQS --max-model-len $LEN --seed $((0x10 + 010))
