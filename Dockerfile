# The image that jobs run in; the same packages as `make install` gives, without those for tests.
#   docker build --tag chorus:cpu .
#   docker build --tag chorus:cuda --build-arg VARIANT=cuda .
# No entrypoint: TorchX gives the command. The CUDA libraries come with torch's wheels; the host needs NVIDIA's driver
# and container toolkit alone. PIP_INDEX_URL and PIP_EXTRA_INDEX_URL name other package indexes, as for pip itself.
FROM python:3.11-slim-bookworm

# cpu or cuda: which of requirements-cpu.txt and requirements-cuda.txt.
ARG VARIANT=cpu
# More packages, pinned or not: boto3 for s3:// paths.
ARG EXTRA_PACKAGES=""
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

WORKDIR /chorus

# The packages first: a change of the sources leaves this layer, the large one, as it is.
COPY requirements.txt requirements-constraints.txt requirements-torchrec.txt requirements-cpu.txt requirements-cuda.txt ./
# hadolint ignore=SC2086
RUN pip install -r "requirements-${VARIANT}.txt" -c requirements-constraints.txt \
    && pip install -r requirements.txt -r "requirements-${VARIANT}.txt" ${EXTRA_PACKAGES} -c requirements-constraints.txt \
    && pip install --no-deps -r requirements-torchrec.txt

COPY pyproject.toml LICENSE ./
COPY configs configs
COPY modules modules
COPY sharding sharding
COPY trainer trainer
COPY torchx_components torchx_components
COPY tools tools
RUN pip install --no-deps --no-build-isolation -e . \
    && python -c "import trainer, fbgemm_gpu, torchrec, torchx, torchx_components.dist" \
    && useradd --create-home --uid 1000 chorus \
    && mkdir runs \
    && chown 1000:1000 . runs

# By number, so that Kubernetes can tell that it is not root.
USER 1000
