#!/bin/bash
PORT=1
f() { PORT=2; local NAME=inner; g; }
g() { vllm serve /m --port $PORT --served-model-name "$NAME"; }
f
NAME=outer
g
