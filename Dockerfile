# Gapscope runs from source: it finds sql/ beside its packages, so nothing is built into a wheel.
FROM python:3.11-slim-bookworm

# One more package index, for example one with torch's CPU build, which is gigabytes smaller. It
# stays readable in the image's history: put no password in it.
ARG PIP_EXTRA_INDEX_URL

WORKDIR /app
# torch first, as in the Makefile; the packages come before the source, so that a change of the
# source does not install them again
COPY constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt setuptools torch==2.13.0
COPY pyproject.toml ./
RUN pip install --no-cache-dir -c constraints.txt --no-build-isolation -e .

# 1000 is the first user of most Linux hosts: it may read that user's own files in /input
RUN groupadd --gid 1000 gapscope \
    && useradd --uid 1000 --gid 1000 --no-create-home --home-dir /tmp gapscope \
    && mkdir /data \
    && chown 1000:1000 /data

COPY etl ./etl
COPY models ./models
COPY service ./service
COPY sql ./sql
# whatever the umask of the checkout was
RUN chmod -R a+rX /app

# GAP_TOKEN_FILE is where a token is made, not one
# HOME: the root file system may be read-only, /tmp is not
# hadolint ignore=DL3064
ENV PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    GAP_DATA=/data \
    GAP_HOST=0.0.0.0 \
    GAP_TOKEN_FILE=/data/token
USER 1000:1000
VOLUME /data
# where DuckDB spills what does not fit into memory
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["gapscope"]
CMD ["serve"]
