# The agent's image. `make image` builds it with docker, podman or buildah; the build arguments PIP_* are pip's own.
ARG BASE_IMAGE=docker.io/library/python:3.13-slim-trixie

# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
ARG SOURCE_DATE_EPOCH=0
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONHASHSEED=0
WORKDIR /build
RUN ["python", "-m", "venv", "--without-pip", "/opt/ita-ag-oase"]
COPY requirements.txt requirements-build.txt ./
RUN python -m pip --python /opt/ita-ag-oase/bin/python install --no-compile --require-hashes --requirement requirements.txt && \
    python -m pip install --no-compile --require-hashes --requirement requirements-build.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
# Byte code that is taken as it is: nothing of the image changes, and its digest must not depend on times of files.
RUN python -m pip wheel --no-deps --no-build-isolation --no-index --wheel-dir dist . && \
    python -m pip --python /opt/ita-ag-oase/bin/python install --no-compile --no-deps --no-index dist/*.whl && \
    /opt/ita-ag-oase/bin/python -m compileall -q -j 1 --invalidation-mode unchecked-hash /opt/ita-ag-oase/lib && \
    find /opt/ita-ag-oase/bin -type f ! -name ita-ag-oase -delete

# hadolint ignore=DL3006
FROM ${BASE_IMAGE}
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="OASE agent of Exastro IT Automation" \
      org.opencontainers.image.description="Collects events from monitoring tools and mailboxes and delivers each of them once" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# What installs further software is not needed any more.
RUN echo 'app_user:x:1000:1000::/home/app_user:/usr/sbin/nologin' >> /etc/passwd && \
    echo 'app_user:x:1000:' >> /etc/group && \
    install -d -o 1000 -g 1000 /storage /home/app_user && \
    rm -rf /usr/local/lib/python3.*/site-packages/pip* /usr/local/lib/python3.*/ensurepip /usr/local/bin/pip*
COPY --from=build /opt/ita-ag-oase /opt/ita-ag-oase
# The page is for who can reach the pod; nothing can be changed through it.
ENV PATH=/opt/ita-ag-oase/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/home/app_user \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    STATUS_ADDRESS=0.0.0.0
WORKDIR /home/app_user
USER 1000:1000
EXPOSE 9879
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-m", "ita_ag_oase.healthcheck"]
ENTRYPOINT ["ita-ag-oase"]
