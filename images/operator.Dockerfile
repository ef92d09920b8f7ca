# `cotenant operator`, and the commands of `cotenant` that look at a cluster or call a model: `make images`.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS builder
COPY images/build.sh constraints.txt /build/
COPY . /source
RUN /build/build.sh operator

FROM ${BASE_IMAGE}
COPY --from=builder /opt/cotenant /opt/cotenant
COPY --from=builder /build/passwd /etc/passwd
ENV PATH=/opt/cotenant/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
WORKDIR /tmp
CMD ["cotenant", "operator"]
