#!/bin/sh
# What the README promises of the installer, tried on a machine that has nothing else: run by
# `scripts/fresh_machine.sh --wheel`, beside install.sh, with an index that has yibu.
set -eux
sh install.sh
PATH=$HOME/.local/bin:$PATH
yibu --version
yibu --help >/dev/null
yibu doctor || [ $? -eq 1 ] # a bare machine may lack what single engines need, and it says so
cd "$HOME"
yibu demo --once
yibu init && yibu config check
yibu export compose >/dev/null && yibu export k8s >/dev/null

# Again, and with a version, it is as before; one that does not exist leaves the old one.
cd - >/dev/null
sh install.sh
sh install.sh --version "$(yibu --version | cut -d' ' -f2)"
if sh install.sh --version 0.0.0.dev999; then exit 1; fi
yibu --version

sh install.sh --uninstall
test ! -e "$HOME/.local/bin/yibu"
test ! -e "$HOME/.local/share/yibu/venv"
test -d "$HOME/.local/share/yibu/store" # models stay
sh install.sh --uninstall --purge
test ! -e "$HOME/.local/share/yibu"
if sh install.sh --nonsense; then exit 1; fi
echo "The installer does what it says."
