# Ray's pods: head, conductor, autoscaler, workers with engines. TORCH=cpu takes torch's CPU build (200 MB, not 3 GB).
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS builder
ARG TORCH=
COPY images/build.sh constraints.txt /build/
COPY . /source
RUN TORCH=${TORCH} /build/build.sh engine,gateway,redis,tracing

FROM ${BASE_IMAGE}
COPY --from=builder /opt/cotenant /opt/cotenant
COPY --from=builder /build/passwd /etc/passwd
# KubeRay starts Ray with bash, which is in the base. The driver's NVML is for the guard.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENV PATH=/opt/cotenant/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
WORKDIR /tmp
CMD ["python", "-m", "cotenant_serving.conductor", "--help"]
