# rgate in a container: one static binary in an empty image, as an unprivileged user.
#
#	docker build .     builds it from source (pulls the Go image)
#	make image         builds it from a local binary (pulls nothing)
#
# To run it, give it a configuration and a way to the engine:
#
#	docker run -p 8080:8080 \
#	  -v "$PWD/rgate.yaml:/etc/rgate/rgate.yaml:ro" \
#	  -v /var/run:/host/run:ro -e DOCKER_HOST=unix:///host/run/docker.sock \
#	  --group-add "$(stat -c %g /var/run/docker.sock)" rgate
#
# compose.yaml does the same, and shows how to protect the socket.

FROM scratch AS base
# Certificates and other state of Caddy. The copies create the folders with the user as
# their owner. Mount volumes to keep them.
ENV XDG_DATA_HOME=/data XDG_CONFIG_HOME=/config
COPY --chown=65532:65532 LICENSE /data/
COPY --chown=65532:65532 LICENSE /config/
COPY rgate.example.yaml /etc/rgate/rgate.yaml
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --retries=3 CMD ["/rgate", "healthcheck"]
ENTRYPOINT ["/rgate"]
CMD ["-c", "/etc/rgate/rgate.yaml"]

FROM base AS local
# In a fresh clone the pattern matches nothing. LICENSE is for older builders, which
# build this stage in any case and fail without a match.
COPY LICENSE bin/image/rgat[e] /

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /rgate ./cmd/rgate

FROM base
COPY LICENSE /
COPY --from=build /rgate /
