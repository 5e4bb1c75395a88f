#!/bin/bash
mkdir -p llm/models llm/run/sub elsewhere
HERE=$PWD
(cd elsewhere; vllm serve ./inner --port 1)
cd llm || exit 1
cd models/../run
vllm serve ./outer --port 2
pushd sub > /dev/null
vllm serve local --port 3
