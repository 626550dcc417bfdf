# One image for all Python processes; the command is the role:
#   python -m authz | python -m services.payment | python -m services.runtime.migrate payment
# docker build . makes it. Two more targets are for docker-compose.yml: the edge, and what makes certificates.
#
# In production, pin the base images by the digests that your registry has for these tags:
#   docker buildx imagetools inspect --format '{{.Manifest.Digest}}' python:3.13-slim
#   docker build --build-arg PYTHON_IMAGE=python:3.13-slim@sha256:<digest> .
ARG PYTHON_IMAGE=python:3.13-slim
ARG ENVOY_IMAGE=envoyproxy/envoy:distroless-v1.40.0

# checkov:skip=CKV_DOCKER_7: Which tag FROM takes is in the arguments' defaults, where checkov does not look.

# All that is derived from the contract: Python stubs, the descriptor set, and the edge's configuration.
FROM ${PYTHON_IMAGE} AS generate
WORKDIR /build
ENV PATH=/opt/generate/bin:$PATH PYTHONPATH=/build:/build/gen/python
COPY requirements-dev.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv --without-pip /opt/generate \
 && pip --python /opt/generate/bin/python install --quiet --no-deps --require-hashes --only-binary=:all: --no-compile \
      -r requirements-dev.lock
COPY buf.yaml buf.gen.yaml ./
COPY third_party third_party
COPY scripts/generate scripts/protoc-gen-grpc-python scripts/
COPY proto proto
RUN scripts/generate
COPY services/runtime services/runtime
COPY envoy envoy
# Of compose, how much a client may ask for: see envoy/rate_limits.yaml.
ARG LIMITS=generous
RUN CONTRACT=gen/contract.binpb python envoy/render.py compose edge

# What requirements.lock names, without the translations that nobody reads. Byte-compiled, since nothing can be written
# at run time.
FROM ${PYTHON_IMAGE} AS install
WORKDIR /build
COPY requirements.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv --without-pip /opt/drawbridge \
 && pip --python /opt/drawbridge/bin/python install --quiet --no-deps --require-hashes --only-binary=:all: --no-compile \
      -r requirements.lock \
 && rm -r /opt/drawbridge/lib/python3*/site-packages/pycountry/locales \
 && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/drawbridge/lib

FROM ${PYTHON_IMAGE} AS runtime
# What could install or build more.
RUN find / -xdev \( -path '*/bin/pip*' -o -path '*/lib/python3*/ensurepip' -o -path '*/python-wheels' \
      -o -path '*-packages/pip*' -o -path '*-packages/setuptools*' -o -path '*-packages/wheel*' \) \
      -prune -exec rm -r {} +
WORKDIR /app
COPY --from=install /opt/drawbridge /opt/drawbridge
COPY --from=generate /build/gen/contract.binpb gen/
COPY --from=generate /build/gen/python gen/python
COPY authz authz
COPY services services
RUN chmod -R a+rX /app && python -m compileall -q --invalidation-mode unchecked-hash /app
# However many cores the machine has, docker-compose.yml and k8s/ let a container use one or two.
ENV PATH=/opt/drawbridge/bin:$PATH \
    PYTHONPATH=/app:/app/gen/python \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHON_CPU_COUNT=2 \
    CONTRACT=/app/gen/contract.binpb
USER 65532:65532
HEALTHCHECK --interval=5s --timeout=10s --start-period=60s --retries=5 CMD ["python", "-m", "services.runtime.probe"]
ARG PYTHON_IMAGE
LABEL org.opencontainers.image.title="Drawbridge" \
      org.opencontainers.image.description="authz and the services behind the edge: the command is the role" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"

# For compose only: makes the certificates, and its folders are what new volumes take their owner from.
FROM runtime AS development
USER root
COPY scripts/stack scripts/stack
RUN chmod -R a+rX scripts && install -d -o 65532 -g 65532 /var/lib/drawbridge/documents /var/lib/nats
USER 65532:65532

# For compose only: Envoy as it comes, with its configuration. (Kubernetes mounts its own.)
FROM ${ENVOY_IMAGE} AS edge
COPY --from=generate /build/edge /etc/envoy
WORKDIR /etc/envoy
USER 65532:65532
# As the native stack starts it: scripts/stack/processes.py.
CMD ["-c", "bootstrap.yaml", "--disable-hot-restart", "--concurrency", "2", "-l", "warning", \
     "--file-flush-interval-msec", "500"]

FROM runtime
