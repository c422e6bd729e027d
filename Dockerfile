# The environment of a Prefect job: what requirements.lock and requirements-team.txt pin, git and make. The code comes
# with the job, which clones it to /work/lectern (prefect.yaml).
# To install from another index: --build-arg PIP_INDEX_URL=... For torch without CUDA: --build-arg PIP_EXTRA_INDEX_URL=...
FROM python:3.11-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*

ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1

WORKDIR /environment
COPY requirements.lock requirements-carried.txt requirements-team.txt ./
RUN pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock -r requirements-carried.txt
RUN pip install --quiet --disable-pip-version-check torch==2.13.0
# Containers share no disk, so artifacts and DVC's files are in a bucket (docs/team.md).
RUN pip install --quiet --disable-pip-version-check --no-deps -r requirements-team.txt

# A volume mounted at /work belongs to this user.
RUN useradd --create-home --uid 1000 lectern && install --directory --owner lectern /work
USER lectern
WORKDIR /work
ENV PYTHONPATH=/work/lectern DO_NOT_TRACK=true PREFECT_SERVER_ANALYTICS_ENABLED=false
CMD ["prefect", "flow-run", "execute"]
