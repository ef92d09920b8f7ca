#!/bin/sh
# build.sh EXTRAS: inside a builder stage, make /opt/cotenant, a virtual environment with cotenant[EXTRAS].
# All of it are wheels, so no compiler is needed; versions are those of constraints.txt. TORCH=cpu: torch's CPU build.
set -eu
extras=$1
# The base's trust store, for pip and uv: a proxy's certificate belongs there, or is mounted there for the build.
trust=/etc/ssl/certs/ca-certificates.crt
[ ! -e $trust ] || export SSL_CERT_FILE=$trust PIP_CERT=$trust
python3 -m venv /build/tools
/build/tools/bin/python -m pip install --quiet --no-cache-dir --constraint /build/constraints.txt uv
uv="/build/tools/bin/uv --no-cache --quiet"
$uv build --wheel --build-constraints /build/constraints.txt --out-dir /build/wheels --python /build/tools/bin/python \
  /source
python3 -m venv --without-pip /opt/cotenant
wheel=$(ls /build/wheels/cotenant-*.whl)
# shellcheck disable=SC2086
$uv pip install --python /opt/cotenant/bin/python --constraint /build/constraints.txt --no-build --compile-bytecode \
  ${TORCH:+--torch-backend=$TORCH} "cotenant[$extras] @ file://$wheel"
# A name for user 1000, which Ray and getpass ask for.
{ cat /etc/passwd; echo 'cotenant:x:1000:1000::/tmp:/usr/sbin/nologin'; } >/build/passwd
