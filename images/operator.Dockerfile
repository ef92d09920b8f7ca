# `cotenant operator`, and every other command of `cotenant` that needs no model: `make images`.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS builder
COPY images/build.sh constraints.txt /build/
COPY . /source
RUN /build/build.sh operator,loadtest

FROM ${BASE_IMAGE}
COPY --from=builder /opt/cotenant /opt/cotenant
COPY --from=builder /build/passwd /etc/passwd
ENV PATH=/opt/cotenant/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
WORKDIR /tmp
CMD ["cotenant", "operator"]
