#!/bin/sh
# base-from-debian.sh [IMAGE]: make a base image from Debian's packages, without a registry, for
#     make images BASE_IMAGE=localhost/cotenant-base:bookworm
# Needs root, mmdebstrap and buildah. MIRROR and SUITE name another mirror or release (one with Python 3.11 or newer).
set -eu
image=${1:-localhost/cotenant-base:bookworm}
suite=${SUITE:-bookworm}
for program in mmdebstrap buildah; do
  command -v "$program" >/dev/null || { echo "$0: $program is not installed: apt-get install $program" >&2; exit 1; }
done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# Only apt is kept of what apt installs: no compiler, no documentation.
mmdebstrap --variant=minbase --include=python3,python3-venv,ca-certificates,tzdata \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  "$suite" "$folder/root.tar" "${MIRROR:-http://deb.debian.org/debian}"
container=$(buildah from scratch)
buildah add --quiet "$container" "$folder/root.tar" / >/dev/null
buildah config --env LANG=C.UTF-8 --cmd bash "$container"
buildah commit --quiet --rm "$container" "$image" >/dev/null
echo "$image"
