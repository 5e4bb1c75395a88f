#!/bin/bash
A='single $HOME "x"'
B="double \"q\" \$HOME $HOME"
C=$'tab\there'
D=un\ quoted
vllm serve /m --served-model-name "$A" "$B" "$C" $D \
   --override-generation-config '{"temperature": 0.6}' \
   --chat-template ~/templates/x.jinja --download-dir=~/notexpanded
