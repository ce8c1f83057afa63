# One Dockerfile, a target an image:
#
#   operator   the controller: no torch, no S3 client
#   jobs       resolve, merge, report, publish, fetch, verify: no torch, so it starts at once
#   cpu        everything on CPU: quantize, evaluate, benchmark and both serving engines; for tests
#
# BASE_IMAGE is Debian 12 with Python 3.11. A virtual environment is made by the base's own Python at
# its final path, in one layer, with bytecode: a read-only root could not cache it at run time. USER is
# set because uid 65532 has no entry in /etc/passwd, where kopf and torch would look for its name.
# CPU_ENVIRONMENT may name a built image of that target, so that a change of our code rebuilds little.
ARG BASE_IMAGE=python:3.11-slim-bookworm
ARG CPU_ENVIRONMENT=cpu-environment

FROM ${BASE_IMAGE} AS wheel-builder
COPY requirements/build.lock /src/requirements/
RUN python3 -m venv /opt/build \
 && /opt/build/bin/pip install --no-cache-dir --require-hashes -r /src/requirements/build.lock

# gcc compiles the merge's kernel; without it the wheel would be a pure one, which the last line shows.
FROM wheel-builder AS wheel
RUN apt-get update -q && apt-get install -qy --no-install-recommends gcc libc6-dev
COPY pyproject.toml hatch_build.py README.md LICENSE /src/
COPY crds/lora_api /src/crds/lora_api
COPY operator /src/operator
COPY jobs /src/jobs
COPY cli /src/cli
RUN cd /src && /opt/build/bin/python -m hatchling build -t wheel -d /dist && ls /dist/*-py3-none-linux_*.whl

FROM ${BASE_IMAGE} AS operator
RUN --mount=type=bind,from=wheel-builder,source=/opt/build,target=/opt/build \
    --mount=type=bind,from=wheel,source=/dist,target=/dist \
    --mount=type=bind,source=requirements/operator.lock,target=/requirements/operator.lock \
    python3 -m venv --without-pip /opt/lora \
 && export UV_PYTHON=/opt/lora UV_LINK_MODE=copy \
 && /opt/build/bin/uv pip install --compile-bytecode --no-deps --require-hashes -r /requirements/operator.lock \
 && /opt/build/bin/uv pip install --compile-bytecode --no-deps /dist/*.whl \
 && ! /opt/lora/bin/python -c "import torch"
ENV PATH=/opt/lora/bin:$PATH USER=lora PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["python", "-m", "lora_operator"]

FROM ${BASE_IMAGE} AS jobs
RUN --mount=type=bind,from=wheel-builder,source=/opt/build,target=/opt/build \
    --mount=type=bind,from=wheel,source=/dist,target=/dist \
    --mount=type=bind,source=requirements/jobs.lock,target=/requirements/jobs.lock \
    python3 -m venv --without-pip /opt/lora \
 && export UV_PYTHON=/opt/lora UV_LINK_MODE=copy \
 && /opt/build/bin/uv pip install --compile-bytecode --no-deps --require-hashes -r /requirements/jobs.lock \
 && /opt/build/bin/uv pip install --compile-bytecode --no-deps /dist/*.whl
ENV PATH=/opt/lora/bin:$PATH USER=lora PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["lora-jobs"]

# What `cpu` holds besides our own code: it changes with its lock only. libnuma1 and libgomp1: vLLM's
# CPU extension does not load without them. gcc builds what comes as source, and goes again.
FROM ${BASE_IMAGE} AS cpu-environment
RUN --mount=type=bind,from=wheel-builder,source=/opt/build,target=/opt/build \
    --mount=type=bind,source=requirements/cpu.lock,target=/requirements/cpu.lock \
    apt-get update -q && apt-get install -qy --no-install-recommends \
        libnuma1 libgomp1 gcc g++ libc6-dev python3-dev \
 && python3 -m venv --without-pip /opt/lora \
 && export UV_PYTHON=/opt/lora UV_LINK_MODE=copy \
 && /opt/build/bin/uv pip install --compile-bytecode --no-deps --require-hashes -r /requirements/cpu.lock \
 && apt-get purge -qy --auto-remove gcc g++ libc6-dev python3-dev \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt

FROM ${CPU_ENVIRONMENT} AS cpu
RUN --mount=type=bind,from=wheel-builder,source=/opt/build,target=/opt/build \
    --mount=type=bind,from=wheel,source=/dist,target=/dist \
    export UV_PYTHON=/opt/lora UV_LINK_MODE=copy \
 && /opt/build/bin/uv pip install --compile-bytecode --no-deps /dist/*.whl
ENV PATH=/opt/lora/bin:$PATH USER=lora PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 TORCHDYNAMO_DISABLE=1
USER 65532:65532
ENTRYPOINT ["lora-jobs"]
