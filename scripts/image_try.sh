#!/usr/bin/env bash
# Builds the image that `yibu export compose` writes and runs it, without Docker: buildah, from a Debian that
# debootstrap makes, as its user, with its entry point and volumes. Exit code 77 where that cannot be done.
#
#   scripts/image_try.sh [PORT]          the port on this machine's loopback, 18765
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
port=${1:-18765}
cannot() { echo "image_try.sh: cannot be done here: $*" >&2; exit 77; }
[[ $(id -u) == 0 ]] || cannot "debootstrap needs root"
for program in debootstrap buildah curl; do
  command -v "$program" >/dev/null || cannot "there is no $program (apt-get install $program)"
done

work=$(mktemp -d /var/tmp/yibu-image.XXXXXX)
chmod 755 "$work"
running=''
cleanup() {
  [[ -z $running ]] || { kill -TERM "$running" 2>/dev/null && wait "$running" || true; }
  rm -rf --one-file-system "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP
printf '[storage]\ndriver = "vfs"\ngraphroot = "%s"\nrunroot = "%s"\n' "$work/graph" "$work/run" >"$work/storage.conf"
export CONTAINERS_STORAGE_CONF=$work/storage.conf BUILDAH_ISOLATION=chroot

# The base image, under the name that the Dockerfile has for it.
mirror=$(apt-get indextargets --format '$(SITE)' "Created-By: Packages" | head -1)
debootstrap --variant=minbase bookworm "$work/debian" "$mirror" >"$work/debian.log" || cannot "debootstrap failed"
made=$(buildah from scratch)
buildah copy -q "$made" "$work/debian" / >/dev/null
buildah commit -q --rm "$made" docker.io/library/debian:bookworm-slim >/dev/null
rm -rf "$work/debian"

cd "$work"
"$repository/.venv/bin/yibu" init yibu.yaml
"$repository/.venv/bin/yibu" export compose -o image >/dev/null
"$repository/.venv/bin/python" -m uv build --quiet --wheel --out-dir image/wheels "$repository"
certificates=/etc/ssl/certs/ca-certificates.crt
printf '[global]\ncert = /ca.crt\n' >pip.conf
inside=(-v "$certificates:/ca.crt:ro")
(cd image && buildah bud -q --format docker "${inside[@]}" --secret "id=pip_conf,src=$work/pip.conf" -t yibu . >"$work/build.log" 2>&1) ||
  { tail -20 build.log >&2; exit 1; }

install -d -o 1000 -g 1000 data models
container=$(buildah from yibu)
key=$(python3 -c 'import secrets; print(secrets.token_urlsafe(32))')
buildah run "${inside[@]}" -v "$work/data:/data" -v "$work/models:/models" -e PIP_CERT=/ca.crt -e SSL_CERT_FILE=/ca.crt \
  -e "YIBU_API_KEYS=$key" -e "YIBU_PORT=$port" "$container" -- tini -- yibu up -f /etc/yibu/yibu.yaml &
running=$!
for _ in $(seq 300); do
  kill -0 "$running" || exit 1
  ! curl -sf "http://127.0.0.1:$port/readyz" >/dev/null || break
  sleep 1
done
[[ $(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$port/v1/models") == 401 ]]
curl -sf "http://127.0.0.1:$port/v1/chat/completions" -H "Authorization: Bearer $key" -H 'Content-Type: application/json' \
  -d '{"model": "smol", "max_tokens": 8, "messages": [{"role": "user", "content": "Hello"}]}' | grep -q '"assistant"'
[[ $(stat -c %u data/state models) == $'1000\n1000' ]]
first=$(pgrep -f -u 1000 'tini -- yibu up -f /etc/yibu/yibu.yaml' | tail -1)
kill -TERM "$first"
wait "$running"
running=''
echo "The image was built, served as user 1000, and stopped."
