# The digests are those of the indexes of all platforms; `make image-base` renews them.
ARG BASE=python:3.13-slim-bookworm@sha256:a1165e272e578941b84abc79e4ab38a0305cd12803a5c4247979ac7655f4d641
ARG RUST=rust:1.96-slim-bookworm@sha256:e18a79fc84dfcfc3ab5ba72290398a644c135c97eaa881447fddc354ee4701a3

# The compiled engine, for the platform of the image. It needs no Python to build.
FROM ${RUST} AS engine

WORKDIR /src
COPY engine/Cargo.toml engine/Cargo.lock ./
COPY engine/src ./src
RUN PYO3_NO_PYTHON=1 PYO3_BUILD_EXTENSION_MODULE=1 cargo build --release --locked

# The build stage has pip; what runs has Python, the packages and nothing to build with.
FROM ${BASE} AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /src
COPY requirements.lock requirements-build.lock ./
RUN python -m pip install --require-hashes -r requirements-build.lock \
 && python -m venv --without-pip /opt/kmproxy \
 && python -m pip --python /opt/kmproxy/bin/python install --no-compile \
      --require-hashes --only-binary=:all: -r requirements.lock
COPY --from=engine /src/target/release/libkmproxy_engine.so \
  /opt/kmproxy/lib/python3.13/site-packages/kmproxy_engine.abi3.so
COPY pyproject.toml README.md LICENSE ./
COPY kmproxy ./kmproxy
# What `kmproxy --version` says that it was built from.
ARG REVISION=
# Bytecode now: on a read-only root it could never be written, and every start would pay.
RUN printf '%s\n' "$REVISION" >kmproxy/REVISION \
 && python -m pip wheel --no-deps --no-build-isolation --wheel-dir /tmp/wheel . \
 && python -m pip --python /opt/kmproxy/bin/python install --no-compile --no-deps /tmp/wheel/*.whl \
 && /opt/kmproxy/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
      /opt/kmproxy/lib \
 && KMPROXY_ENGINE=compiled /opt/kmproxy/bin/kmproxy --version

FROM ${BASE}

ARG BASE
LABEL org.opencontainers.image.title="kmproxy" \
      org.opencontainers.image.description="Namespace labels on every kubelet metric" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.url="https://kmproxy.example.com" \
      org.opencontainers.image.documentation="https://kmproxy.example.com/docs" \
      org.opencontainers.image.source="https://kmproxy.example.com/source" \
      org.opencontainers.image.base.name=$BASE

# pip, apt, perl and shells are of no use to a daemon, and of some to an intruder. The list of
# Debian's packages stays, for scanners; the shell goes last, for it runs this.
RUN python -m pip uninstall --yes --quiet --root-user-action=ignore pip \
 && rm -rf /usr/local/lib/python3.13/ensurepip /root/.cache /usr/lib/apt /etc/apt \
      /usr/bin/apt* /usr/bin/dpkg* /usr/bin/perl* \
 && rm -f /bin/bash /bin/rbash /bin/dash /bin/sh

COPY --from=build /opt/kmproxy /opt/kmproxy

ENV PATH=/opt/kmproxy/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=2

# Last, as they differ from build to build. CREATED is the time of the commit.
ARG REVISION=
ARG VERSION=
ARG CREATED=
LABEL org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.created=$CREATED

USER 65532:65532
EXPOSE 8080 8081
ENTRYPOINT ["kmproxy"]
