# EDM in a container: one small image for both modes. See docs/docker.md.
#
#     docker build -t edm .
#
# BASE may be any image of Debian 13 from whose sources apt can install.
ARG BASE=debian:trixie-slim

FROM ${BASE} AS build
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        cmake gcc libc6-dev make pkg-config \
        libinih-dev liblz4-dev libmsgpack-c-dev libxxhash-dev libzmq3-dev
WORKDIR /src
COPY . .
RUN cmake -S . -B /build -DCMAKE_BUILD_TYPE=RelWithDebInfo -DEDM_TESTS=OFF \
    && cmake --build /build --parallel "$(nproc)" \
    && install -D -s /build/edm /out/edm
# Beside edm: what asks a DMS for its health, and the program that the compose file runs.
RUN cc -std=c11 -D_GNU_SOURCE -O2 -s -I. -o /out/edm-health tests/docker/health.c \
        /build/proto/libedm-proto.a -lzmq -lmsgpack-c -lxxhash \
    && cc -std=c11 -D_GNU_SOURCE -O2 -s -I. -pthread -o /out/edm-verify tests/run/verify.c

FROM ${BASE}
# The numbers are fixed, so that a volume keeps its owner from one image to the next.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        libinih1 liblz4-1 libmsgpack-c2 libxxhash0 libzmq5 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/* /var/log/* \
    && groupadd --system --gid 7600 edm \
    && useradd --system --uid 7600 --gid edm --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin edm \
    && install -d -o edm -g edm -m 0750 /var/lib/edm
COPY --from=build /out/ /usr/local/bin/
# Fails here, not at the user's, when a library is missing.
RUN edm --version

# Not root, unless a client asks for it (it must be able to open /dev/userfaultfd).
USER edm
EXPOSE 7600
# For a DMS; a client is started with --no-healthcheck.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["edm-health"]
ENTRYPOINT ["edm"]
CMD ["--mode=dms", "--listen=tcp://0.0.0.0:7600", "--data=/var/lib/edm", "--log-file=-"]
