#!/bin/sh
# Installs yibu for the user who runs this, without a clone and without root; see usage below. In a pipe:
#
#   curl -fsSL ADDRESS/install.sh | sh -s -- --version 0.1.0
set -eu

usage() {
  cat <<'TEXT'
sh install.sh [--version X.Y.Z] [--uninstall [--purge]]

A virtual environment in ~/.local/share/yibu/venv, and ~/.local/bin/yibu as a link into it. Run again
it brings yibu to the newest version, or to the one that is named. Python is one of 3.11 to 3.14 that
the machine has (YIBU_PYTHON names another); where it has none, uv brings one.

  PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, UV_INDEX_URL, UV_DEFAULT_INDEX, UV_INDEX, pip's configuration:
                where packages come from
  XDG_DATA_HOME, XDG_BIN_HOME: other places than ~/.local/share and ~/.local/bin
  --uninstall   removes both; models and settings stay
  --purge       with it: models, engines and state too
TEXT
}

say() { printf '%s\n' "$*" >&2; }
fail() { say "install.sh: $1"; [ -z "${2-}" ] || say "  → $2"; exit 1; }

main() {
  version='' uninstall='' purge=''
  while [ $# -gt 0 ]; do
    case $1 in
      --version) [ $# -gt 1 ] || fail "--version needs a version" "--version 0.1.0"; version=$2; shift ;;
      --uninstall) uninstall=yes ;;
      --purge) purge=yes ;;
      -h | --help) usage; exit 0 ;;
      *) fail "unknown option $1" "sh install.sh --help" ;;
    esac
    shift
  done
  [ -n "${HOME-}" ] || fail "HOME is not set" "HOME=/some/folder sh install.sh"
  data=${XDG_DATA_HOME:-$HOME/.local/share}/yibu
  bin=${XDG_BIN_HOME:-$HOME/.local/bin}
  venv=$data/venv
  link=$bin/yibu
  if [ -n "$uninstall" ]; then remove; return; fi
  [ -z "$purge" ] || fail "--purge goes with --uninstall"
  case $(uname -s) in
    Linux | Darwin) ;;
    *) fail "yibu runs on Linux and macOS; this is $(uname -s)" ;;
  esac
  if [ -e "$link" ] && [ ! -L "$link" ]; then
    fail "$link is there, and this script did not make it" "Move it away, or set XDG_BIN_HOME."
  fi
  install_yibu
}

# A Python that fits, with venv and pip in it.
fits() {
  "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null
}

find_python() {
  if [ -n "${YIBU_PYTHON-}" ]; then
    fits "$YIBU_PYTHON" || fail "YIBU_PYTHON=$YIBU_PYTHON is no Python 3.11 to 3.14 with venv"
    python=$YIBU_PYTHON
    return 0
  fi
  for name in python3.13 python3.12 python3.11 python3.14 python3; do
    if path=$(command -v "$name") && fits "$path"; then python=$path; return 0; fi
  done
  return 1
}

# uv: the machine's, or out of the package index by a Python that is too old for yibu itself, or by uv's
# own installer; the latter two into yibu's folder.
find_uv() {
  if uv=$(command -v uv); then return 0; fi
  uv=$data/uv/bin/uv
  if [ -x "$uv" ]; then return 0; fi
  as_pip
  if python3 -m venv "$data/uv" 2>/dev/null && "$data/uv/bin/python" -m pip install --quiet uv 2>/dev/null; then
    return 0
  fi
  rm -rf "$data/uv"
  command -v curl >/dev/null || return 1
  curl -LsSf --max-time 60 https://astral.sh/uv/install.sh |
    env UV_UNMANAGED_INSTALL="$data/uv/bin" sh >/dev/null 2>&1 || true
  [ -x "$uv" ]
}

# uv's own settings say the index in other words than pip's; either is understood.
as_pip() {
  [ -n "${PIP_INDEX_URL-}" ] || [ -z "${UV_DEFAULT_INDEX:-${UV_INDEX_URL-}}" ] || {
    PIP_INDEX_URL=${UV_DEFAULT_INDEX:-$UV_INDEX_URL}
    export PIP_INDEX_URL
  }
  [ -n "${PIP_EXTRA_INDEX_URL-}" ] || [ -z "${UV_INDEX:-${UV_EXTRA_INDEX_URL-}}" ] || {
    PIP_EXTRA_INDEX_URL=${UV_INDEX:-$UV_EXTRA_INDEX_URL}
    export PIP_EXTRA_INDEX_URL
  }
}

as_uv() {
  [ -n "${UV_DEFAULT_INDEX:-${UV_INDEX_URL-}}" ] || [ -z "${PIP_INDEX_URL-}" ] || {
    UV_DEFAULT_INDEX=$PIP_INDEX_URL
    export UV_DEFAULT_INDEX
  }
  [ -n "${UV_INDEX:-${UV_EXTRA_INDEX_URL-}}" ] || [ -z "${PIP_EXTRA_INDEX_URL-}" ] || {
    UV_INDEX=$PIP_EXTRA_INDEX_URL
    export UV_INDEX
  }
}

install_yibu() {
  wanted=yibu${version:+==$version}
  python=''
  find_python || true
  mkdir -p "$data" "$bin" || fail "$data or $bin cannot be written" "Set XDG_DATA_HOME and XDG_BIN_HOME."
  # The new environment is made beside the old one, which stays whole until the new one runs.
  new=$data/venv.new
  rm -rf "$new"
  trap 'rm -rf "$new"' EXIT
  trap 'exit 130' INT TERM HUP
  if [ -n "$python" ]; then
    say "Installing $wanted with $python"
    as_pip
    "$python" -m venv --prompt yibu "$new" || fail "$python could not make a virtual environment in $new"
    "$new/bin/python" -m pip install --quiet --disable-pip-version-check "$wanted" ||
      fail "$wanted could not be installed: see above" "A mirror: PIP_INDEX_URL=https://… sh install.sh"
  elif find_uv; then
    say "No Python 3.11 to 3.14 with venv is here: $uv brings one, and installs $wanted"
    as_uv
    "$uv" venv --quiet --prompt yibu --relocatable --python '>=3.11,<3.15' "$new" || fail "uv found no Python and could not get one"
    "$uv" pip install --quiet --python "$new/bin/python" "$wanted" ||
      fail "$wanted could not be installed: see above" "A mirror: UV_DEFAULT_INDEX=https://… sh install.sh"
  else
    fail "no Python 3.11 to 3.14 with venv is here, and no uv, which could bring one" \
      "As root: apt-get install python3-venv (dnf install python3.11). Or uv: https://docs.astral.sh/uv"
  fi
  "$new/bin/python" -m yibu --version >/dev/null || fail "what was installed does not run: see above"
  swap
  say "$("$venv/bin/yibu" --version) is in $venv, and $link starts it."
  case :$PATH: in
    *:"$bin":*) say "Begin with: yibu demo" ;;
    *) say "Add it to your PATH: export PATH=\"$bin:\$PATH\"   Then: yibu demo" ;;
  esac
}

# Programs and settings of an environment name its folder: they are made to name the one it gets.
swap() {
  old_name=$(printf '%s' "$new" | sed 's/[][\.*^$|]/\\&/g')
  new_name=$(printf '%s' "$venv" | sed 's/[&|\\]/\\&/g')
  for file in "$new"/bin/* "$new/pyvenv.cfg"; do
    if [ -f "$file" ] && [ ! -L "$file" ] && grep -qsIF "$new" "$file"; then
      sed "s|$old_name|$new_name|g" "$file" >"$new/changed" && cat "$new/changed" >"$file"
    fi
  done
  rm -rf "$new/changed" "$data/venv.old"
  [ ! -e "$venv" ] || mv "$venv" "$data/venv.old"
  mv "$new" "$venv"
  rm -rf "$data/venv.old"
  ln -sf "$venv/bin/yibu" "$link"
}

remove() {
  if [ -x "$venv/bin/yibu" ]; then
    # A node that runs is stopped first: its program is about to go.
    "$venv/bin/yibu" down >/dev/null 2>&1 || true
  fi
  if [ -L "$link" ] && [ "$(readlink "$link")" = "$venv/bin/yibu" ]; then rm "$link"; fi
  rm -rf "$venv" "$data/venv.new" "$data/venv.old" "$data/uv"
  if [ -n "$purge" ]; then
    rm -rf "$data" "${XDG_CACHE_HOME:-$HOME/.cache}/yibu" "${XDG_STATE_HOME:-$HOME/.local/state}/yibu"
    say "yibu, its models, engines and state are removed. The hubs' own caches stay."
  else
    rmdir "$data" 2>/dev/null || true
    say "yibu is removed. Its models, engines and state stay; sh install.sh --uninstall --purge removes them."
  fi
}

main "$@"
