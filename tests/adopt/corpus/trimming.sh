#!/bin/bash
FILE=/models/qwen2.5-7b-instruct-q4_k_m.gguf
BASE=${FILE##*/}
NAME=${BASE%.gguf}
DIR=${FILE%/*}
SHORT=${NAME/-instruct/}
llama-server -m "$DIR/$BASE" --alias "${SHORT//-/_}" --ctx-size ${#FILE}000 --port "80${NAME:0:0}80"
