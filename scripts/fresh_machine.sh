#!/usr/bin/env bash
# Runs a command of the README on a machine that has nothing but what the README asks for: a bare
# Debian made by debootstrap, with python3, python3-venv, make and git.
#
#   scripts/fresh_machine.sh [--suite NAME] [--mirror URL] [--with PKG,PKG] [--user] [--cache DIR]
#                            [--shell TEXT] [COMMAND …]          COMMAND: make demo ARGS=--once
#   scripts/fresh_machine.sh --wheel [… the same]                COMMAND: scripts/install_try.sh
#
#   --suite NAME   the Debian release (this machine's own)      --with    further Debian packages
#   --mirror URL   where its packages are (this machine's own)  --user    run as a user, not as root
#   --components   those of the mirror to take packages from (main; Ubuntu's Python needs main,universe)
#   --cache DIR    keep downloaded packages there, Debian's and Python's, for another run
#   --wheel        no clone, no make, no git: a wheel and an sdist, built here and checked by twine, in an
#                  index of their own (PIP_EXTRA_INDEX_URL), and the installer
#   --shell TEXT   run TEXT by sh first, as root, in the new machine: to take something away
#
# The package index, proxies and certificates are the ones that pip is configured for here.
# Exit code: the command's, or 77 and a reason where such a machine cannot be made.
#
# Mounts and processes live in namespaces of their own, which end with their first process; a trap
# ends that one and removes the directory.
set -euo pipefail

repository=$(cd "$(dirname "$0")/.." && pwd)
suite='' mirror='' components=main packages=python3,python3-venv,make,git,ca-certificates user='' cache='' before='' wheel=''
while [[ ${1-} == --* ]]; do
  case $1 in
    --suite) suite=$2; shift 2 ;;
    --mirror) mirror=$2; shift 2 ;;
    --components) components=$2; shift 2 ;;
    --with) packages+=,$2; shift 2 ;;
    --cache) cache=$(mkdir -p "$2" && cd "$2" && pwd); shift 2 ;;
    --shell) before=$2; shift 2 ;;
    --user) user=yes; shift ;;
    --wheel) wheel=yes; packages=${packages/,make,git/}; shift ;;
    *) sed -n '2,/^set/{/^#/!d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2 ;;
  esac
done
if [[ $wheel ]]; then (($#)) || set -- sh install_try.sh; fi
(($#)) || set -- make demo ARGS=--once

cannot() { echo "fresh_machine.sh: no such machine can be made here: $*" >&2; exit 77; }
[[ $(id -u) == 0 ]] || cannot "debootstrap and chroot need root"
command -v debootstrap >/dev/null || cannot "there is no debootstrap (apt-get install debootstrap)"
unshare --mount --pid --fork true 2>/dev/null || cannot "mount namespaces are not permitted"
own=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
suite=${suite:-$own}
mirror=${mirror:-$(apt-get indextargets --format '$(SITE) $(RELEASE)' "Created-By: Packages" |
  awk -v suite="$own" '$2 == suite { print $1; exit }')}
[[ $suite && $mirror ]] || cannot "the release or its mirror is not known: give --suite and --mirror"

root=$(mktemp -d /var/tmp/yibu-fresh.XXXXXX)
chmod 755 "$root" # it is the / of every user there
inside=''
cleanup() {
  [[ -z $inside ]] || { kill -KILL "$inside" 2>/dev/null && wait "$inside" || true; }
  rm -rf --one-file-system "$root" "$root.log"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

# Runs a command whose mounts and processes are its own; in the background, for a trap waits for
# what runs in the foreground.
contained() {
  unshare --mount --pid --fork --kill-child --mount-proc "$@" <&0 &
  inside=$!
  local code=0
  wait "$inside" || code=$?
  inside=''
  return "$code"
}

began=$EPOCHREALTIME
took() { awk -v a="$began" -v b="$EPOCHREALTIME" -v what="$1" 'BEGIN { printf "%s: %.1f s\n", what, b - a }' >&2; began=$EPOCHREALTIME; }

base=${cache:+$cache/$suite-$(sha256sum <<<"$mirror $components $packages" | cut -c1-12).tar}
if [[ $base && -e $base ]]; then
  tar -x -C "$root" -f "$base"
else
  script=() # an older debootstrap knows no newer release, but all of them are made alike
  [[ -e /usr/share/debootstrap/scripts/$suite ]] || script=("$([[ $mirror == *ubuntu* ]] && echo gutsy || echo sid)")
  contained debootstrap --variant=minbase --components="$components" --include="$packages" \
    "$suite" "$root" "$mirror" "${script[@]}" >"$root.log" 2>&1 ||
    { tail -20 "$root.log" >&2; cannot "debootstrap failed"; }
  rm -rf "$root"/var/cache/apt/archives/*.deb
  [[ -z $base ]] || { tar -c -C "$root" -f "$base.$$" . && mv "$base.$$" "$base"; }
fi

# What a user has: an index with yibu's distributions and the installer.
distributions() {
  local python=${PYTHON:-$repository/.venv/bin/python} index=$root/yibu/index/yibu file
  mkdir -p "$index"
  "$python" -m uv build --quiet --out-dir "$index" "$repository"
  "$python" -m uv tool run --quiet twine check --strict "$index"/*.whl "$index"/*.tar.gz >&2
  rm -f "$index/.gitignore"
  for file in "$index"/*.*; do echo "<a href=\"${file##*/}\">${file##*/}</a><br>"; done >"$root/index.html"
  mv "$root/index.html" "$index/"
  cp "$repository"/scripts/install.sh "$repository"/scripts/install_try.sh "$root/yibu/"
}

# Or the clone, as it stands in the working tree.
clone() {
  git clone --quiet --no-hardlinks "$repository" "$root/yibu"
  (cd "$repository" && git ls-files -z --cached --others --exclude-standard --deduplicate |
    xargs -0 sh -c 'for file; do [ -e "$file" ] && printf "%s\0" "$file"; done' sh |
    tar --null --files-from=- -c) | tar -x -C "$root/yibu"
}
if [[ $wheel ]]; then distributions; else clone; fi
took "a bare $suite"

# What an administrator has set: the package index, its certificates, name servers and proxies.
cp /etc/resolv.conf /etc/hosts "$root/etc/"
rm -f "$root/etc/ssl/certs/ca-certificates.crt"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
settings=$(PYTHONPATH=$repository/src python3 - <<'PYTHON'
import os
from yibu.pipconfig import pip_options

print("[global]")
for name, value in pip_options(os.environ, "install").items():
    print(f"{name} = {value}")
PYTHON
)
echo "$settings" >"$root/etc/pip.conf"
# Folders and files that pip's settings name are shown to the new machine, read-only.
places=$(grep -oE '(file://)?/[^ ]+' <<<"$settings" | sed -n 's#^file://##; /^\/[a-z]/p' | sort -u |
  while read -r place; do
    place=${place%/simple}
    [[ -e $place ]] && echo "$place"
  done || true)
variables=(HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb)
for name in http_proxy https_proxy no_proxy all_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY SSL_CERT_FILE; do
  [[ ${!name-} ]] && variables+=("$name=${!name}")
done
if [[ $wheel ]]; then
  further=$(sed -n 's/^extra-index-url = //p' <<<"$settings" | tr '\n' ' ')
  variables+=("PIP_EXTRA_INDEX_URL=file:///yibu/index${further:+ $further}")
fi
as=()
if [[ $user ]]; then
  chroot "$root" useradd --create-home somebody
  chroot "$root" chown -R somebody: /yibu
  variables[0]=HOME=/home/somebody
  as=(setpriv --reuid somebody --regid somebody --init-groups)
fi

HOME_INSIDE=${variables[0]#HOME=}
export root cache places before HOME_INSIDE
contained bash -euo pipefail -c '
  mount --make-rprivate /
  mount -t proc proc "$root/proc"
  mount -t sysfs -o ro sysfs "$root/sys"
  mount --rbind /dev "$root/dev"
  mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
  for place in $places; do
    if [[ -d $place ]]; then mkdir -p "$root$place"; else mkdir -p "$root${place%/*}"; touch "$root$place"; fi
    mount --bind "$place" "$root$place"
    mount -o remount,bind,ro "$root$place"
  done
  if [[ $cache ]]; then
    kept="$cache/${HOME_INSIDE##*/}"
    mkdir -p "$kept" "$root$HOME_INSIDE/.cache"
    mount --bind "$kept" "$root$HOME_INSIDE/.cache"
    chroot "$root" chown --reference="$HOME_INSIDE" "$HOME_INSIDE/.cache"
  fi
  [[ -z $before ]] || chroot "$root" sh -c "$before"
  exec chroot "$root" "$@"
' bash "${as[@]}" env -i "${variables[@]}" sh -c 'cd /yibu && exec "$@"' sh "$@" && code=0 || code=$?
took "$*"
exit "$code"
