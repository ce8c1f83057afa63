# One Dockerfile, a target an image:
#
#   operator   the controller: no torch, no S3 client
#   jobs       resolve, merge, report, publish, fetch, verify: no torch, so it starts at once
#   cpu        everything on CPU: quantize, evaluate, benchmark and both serving engines; for tests
#
# BASE_IMAGE is Debian 12 with Python 3.11. A virtual environment is made by the base's own Python at
# its final path, in one layer, with bytecode: a read-only root could not cache it at run time.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS wheel
COPY requirements/build.lock /src/requirements/
RUN python3 -m venv /opt/build \
 && /opt/build/bin/pip install --no-cache-dir --require-hashes -r /src/requirements/build.lock
COPY pyproject.toml README.md LICENSE /src/
COPY crds/lora_api /src/crds/lora_api
COPY operator /src/operator
COPY jobs /src/jobs
RUN cd /src && /opt/build/bin/python -m hatchling build -t wheel -d /dist

FROM ${BASE_IMAGE} AS operator
RUN --mount=type=bind,from=wheel,source=/opt/build,target=/opt/build \
    --mount=type=bind,from=wheel,source=/dist,target=/dist \
    --mount=type=bind,source=requirements,target=/requirements \
    python3 -m venv --without-pip /opt/lora \
 && export UV_PYTHON=/opt/lora UV_LINK_MODE=copy \
 && /opt/build/bin/uv pip install --compile-bytecode --no-deps --require-hashes -r /requirements/operator.lock \
 && /opt/build/bin/uv pip install --compile-bytecode --no-deps /dist/*.whl \
 && ! /opt/lora/bin/python -c "import torch"
ENV PATH=/opt/lora/bin:$PATH PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["python", "-m", "lora_operator"]

FROM ${BASE_IMAGE} AS jobs
RUN --mount=type=bind,from=wheel,source=/opt/build,target=/opt/build \
    --mount=type=bind,from=wheel,source=/dist,target=/dist \
    --mount=type=bind,source=requirements,target=/requirements \
    python3 -m venv --without-pip /opt/lora \
 && export UV_PYTHON=/opt/lora UV_LINK_MODE=copy \
 && /opt/build/bin/uv pip install --compile-bytecode --no-deps --require-hashes -r /requirements/jobs.lock \
 && /opt/build/bin/uv pip install --compile-bytecode --no-deps /dist/*.whl
ENV PATH=/opt/lora/bin:$PATH PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["lora-jobs"]

# libnuma1 and libgomp1: vLLM's CPU extension does not load without them. gcc builds what comes as
# source only, and goes again in the same layer.
FROM ${BASE_IMAGE} AS cpu
RUN --mount=type=bind,from=wheel,source=/opt/build,target=/opt/build \
    --mount=type=bind,from=wheel,source=/dist,target=/dist \
    --mount=type=bind,source=requirements,target=/requirements \
    apt-get update -q && apt-get install -qy --no-install-recommends \
        libnuma1 libgomp1 gcc g++ libc6-dev python3-dev \
 && python3 -m venv --without-pip /opt/lora \
 && export UV_PYTHON=/opt/lora UV_LINK_MODE=copy \
 && /opt/build/bin/uv pip install --compile-bytecode --no-deps --require-hashes -r /requirements/cpu.lock \
 && /opt/build/bin/uv pip install --compile-bytecode --no-deps /dist/*.whl \
 && apt-get purge -qy --auto-remove gcc g++ libc6-dev python3-dev \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt
ENV PATH=/opt/lora/bin:$PATH PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 TORCHDYNAMO_DISABLE=1
USER 65532:65532
ENTRYPOINT ["lora-jobs"]
