# The service's image, built by deploy/build.sh: packages, models and code in separate layers, the most stable first.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

# hadolint ignore=DL3006  # the argument's default names a tag
FROM ${BASE} AS base
# LightGBM needs OpenMP's library. With a base image that contains it, the build needs no Debian mirror.
# hadolint ignore=DL3008  # Debian keeps only its newest version
RUN python3 -c "import ctypes; ctypes.CDLL('libgomp.so.1')" 2>/dev/null \
 || (apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*)

# Below, file times and modes are normalised, and modules are compiled by hash instead of time. So the same files give
# the same layers, whoever checked them out and when.
FROM base AS packages
# hadolint ignore=DL3008  # Debian keeps only its newest version
RUN command -v strip >/dev/null \
 || (apt-get update && apt-get install -y --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*)
ARG LOCK=requirements-serving.lock
COPY ${LOCK} /tmp/requirements.lock
COPY deploy/slim.sh /tmp/
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.crt,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv --without-pip /opt/venv \
 && python3 -m pip --python /opt/venv/bin/python install --require-hashes --no-deps --only-binary :all: \
      --no-compile --disable-pip-version-check --root-user-action ignore -r /tmp/requirements.lock \
 && /tmp/slim.sh /opt/venv \
 && PYTHONHASHSEED=0 python3 -m compileall -q --invalidation-mode unchecked-hash /opt/venv \
 && mkdir -p /packages/opt && mv /opt/venv /packages/opt/ \
 && find /packages -exec touch --no-dereference --date=@0 {} +

FROM base AS files
COPY models/plants /models/app/models/plants
COPY models/golden /models/app/models/golden
COPY data/references/dictionary.yaml /models/app/data/references/
COPY src/upkeep /app/src/upkeep
RUN PYTHONHASHSEED=0 python3 -m compileall -q --invalidation-mode unchecked-hash /app/src \
 && mkdir -p /code/app && mv /app/src /code/app/ \
 && chmod -R u=rwX,go=rX /models /code \
 && install -d -o 10001 -g 10001 /models/var/lib/upkeep \
 && find /models /code -exec touch --no-dereference --date=@0 {} +

FROM base
COPY --from=packages /packages /
COPY --from=files /models /
COPY --from=files /code /
WORKDIR /app
USER 10001:10001
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app/src \
    TYPER_USE_RICH=0 \
    UPKEEP_LOG_URL=/var/lib/upkeep/predictions \
    UPKEEP_SPOOL=/var/lib/upkeep/spool
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
CMD ["python", "-m", "upkeep", "serve"]

ARG COMMIT=unknown
ARG DVC_LOCK=unknown
ARG MODELS=unknown
ENV UPKEEP_RELEASE=${COMMIT}
LABEL org.opencontainers.image.title="upkeep" \
      org.opencontainers.image.revision="${COMMIT}" \
      upkeep.dvc-lock="${DVC_LOCK}" \
      upkeep.models="${MODELS}"
