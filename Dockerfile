# syntax=docker/dockerfile:1-labs
# The image of the node with its language tree.
#
#   docker buildx build --allow security.insecure -t tee-job-node .
#
# The stage "tree" makes a root file system, which needs mounts: hence security.insecure, for that one step.
# As it is, the image runs without root, and programs run under bubblewrap (the container then needs
# --security-opt with each of seccomp=unconfined, apparmor=unconfined and systempaths=unconfined). For the strong
# sandbox, in which every limit is enforced, run it as root with the rights to make name spaces, mounts and
# control groups; docs/how-to/run-in-a-container.md has a command with fewer:
#
#   docker run --user 0 --init --privileged --cgroupns=host -v /sys/fs/cgroup:/sys/fs/cgroup tee-job-node

FROM debian:trixie-slim AS base
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bubblewrap ca-certificates python3 util-linux \
    && rm -rf /var/lib/apt/lists/*

FROM base AS build
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv
WORKDIR /src
COPY pyproject.toml README.md ./
COPY blueprint ./blueprint
COPY contracts ./contracts
COPY jobs ./jobs
COPY sandbox ./sandbox
RUN python3 -m venv /opt/node && /opt/node/bin/pip install --no-cache-dir .

FROM base AS tree
RUN apt-get update && apt-get install --yes --no-install-recommends debian-archive-keyring mmdebstrap python3-pip
WORKDIR /src
COPY sandbox ./sandbox
RUN --security=insecure python3 -m sandbox.rootfs /var/lib/tee-job-node

FROM base
COPY --from=tree /var/lib/tee-job-node/trees /var/lib/tee-job-node/trees
COPY --from=build /opt/node /opt/node
RUN useradd --system --uid 10001 --home-dir /var/lib/tee-job-node --shell /usr/sbin/nologin node \
    && chown node:node /var/lib/tee-job-node
# Root and others keep their state in the same place.
ENV PATH=/opt/node/bin:/usr/local/bin:/usr/bin:/bin XDG_DATA_HOME=/var/lib PYTHONUNBUFFERED=1
USER node
WORKDIR /var/lib/tee-job-node
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8547/healthz', timeout=4)"]
ENTRYPOINT ["blueprint"]
CMD ["run"]
