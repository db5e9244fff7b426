# Two images from one file.
#
#   docker build --target scorer -t kintsugi-scorer .   scores folders; no torch, MLflow or Prefect in it
#   docker build --target full   -t kintsugi .          trains too, and runs the MLflow and Prefect servers
#
# Both install the locked, hashed requirements. CUDA comes with torch's own packages, so the full image is the GPU image
# as well: start it with the NVIDIA runtime (docker run --gpus all ...). The scorer then needs CUDA from its host's image.
ARG PYTHON_IMAGE=python:3.11.15-slim-bookworm

FROM ${PYTHON_IMAGE} AS tools
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy
WORKDIR /app
COPY requirements.lock requirements-worker.lock ./
# uv's version and hashes are the lock's, as everything else's are.
RUN sed -n '/^uv==/,/^    # via/p' requirements.lock > /tmp/uv.txt \
    && python -m pip install --require-hashes --requirement /tmp/uv.txt

FROM tools AS scorer-build
RUN python -m venv --without-pip /opt/kintsugi \
    && uv pip sync --no-cache --python /opt/kintsugi/bin/python --require-hashes requirements-worker.lock
COPY LICENSE README.md pyproject.toml ./
COPY flows flows
COPY pipelines pipelines
COPY vaecore vaecore
RUN uv pip install --no-cache --python /opt/kintsugi/bin/python --no-deps --build-constraints requirements.lock .

FROM tools AS full-build
RUN python -m venv --without-pip /opt/kintsugi \
    && uv pip sync --no-cache --python /opt/kintsugi/bin/python --require-hashes requirements.lock
COPY LICENSE README.md pyproject.toml ./
COPY flows flows
COPY pipelines pipelines
COPY vaecore vaecore
# Editable: Prefect loads flows by their path under /app, and they must be the same modules as the installed ones.
RUN uv pip install --no-cache --python /opt/kintsugi/bin/python --no-deps --no-build-isolation --editable . \
    && python -m compileall -q flows pipelines vaecore

FROM ${PYTHON_IMAGE} AS base
# Files that the container writes into a mounted folder belong to this user: give it the ids of the folder's owner.
ARG KINTSUGI_UID=1000
ARG KINTSUGI_GID=1000
RUN groupadd --non-unique --gid "${KINTSUGI_GID}" kintsugi \
    && useradd --non-unique --uid "${KINTSUGI_UID}" --gid kintsugi --no-create-home --home-dir /var/lib/kintsugi kintsugi \
    && install --directory --owner kintsugi --group kintsugi /var/lib/kintsugi /data
ENV PATH=/opt/kintsugi/bin:$PATH \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    KINTSUGI_HOME=/var/lib/kintsugi
USER kintsugi
WORKDIR /data

# A batch command: it ends by itself, so there is no health to check.
FROM base AS scorer
COPY --from=scorer-build /opt/kintsugi /opt/kintsugi
ENTRYPOINT ["kintsugi"]
CMD ["--help"]

# One image, several roles; docker-compose.yml gives each its command and its health check.
FROM base AS full
ENV GIT_PYTHON_REFRESH=quiet \
    MLFLOW_DISABLE_TELEMETRY=true \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PREFECT_SERVER_ANALYTICS_ENABLED=false
COPY --from=full-build /opt/kintsugi /opt/kintsugi
COPY --from=full-build /app /app
COPY prefect.yaml /app/prefect.yaml
COPY docker/create_bucket.py docker/mlflow-auth.ini /app/docker/
WORKDIR /app
CMD ["kintsugi", "--help"]
