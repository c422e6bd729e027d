# The environment of a Prefect job: what requirements.lock names, what a team's bucket wants, git and make. The code
# comes with the job, which clones it to /work/lectern (prefect.yaml). Other indexes, one with torch for the CPU alone
# say: --build-arg PIP_INDEX_URL=...
FROM python:3.11-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*

ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1

WORKDIR /environment
COPY requirements.lock requirements-carried.txt requirements-team.txt ./
RUN pip install --quiet --disable-pip-version-check --constraint requirements.lock torch==2.13.0
RUN pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock -r requirements-carried.txt
# Containers have no disk in common with anybody: artifacts and DVC's files lie in a bucket (docs/team.md).
RUN pip install --quiet --disable-pip-version-check --no-deps -r requirements-team.txt

# Whoever starts a container with a volume at /work finds it owned by this user.
RUN useradd --create-home --uid 1000 lectern && install --directory --owner lectern /work
USER lectern
WORKDIR /work
ENV PYTHONPATH=/work/lectern DO_NOT_TRACK=true PREFECT_SERVER_ANALYTICS_ENABLED=false
CMD ["prefect", "flow-run", "execute"]
