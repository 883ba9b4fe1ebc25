# The programs are built outside, in the release profile; this puts them where they run.
# `make image` hands them over: tar -c sheaf-node sheaf .. Dockerfile | docker build -
ARG BASE=debian:bookworm-slim
FROM ${BASE}

COPY sheaf-node sheaf sheaf-operator /usr/local/bin/

# A number, so that Kubernetes sees that it is not root. Nothing below / is written but volumes.
USER 65532:65532
WORKDIR /
ENTRYPOINT ["sheaf-node"]
