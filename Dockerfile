# EarthMapper's server on a CPU: docker build -t earthmapper . && docker run --rm -p 127.0.0.1:8000:8000 earthmapper
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --workspace --locked --bin earthmapper && strip target/release/earthmapper

FROM debian:bookworm-slim
RUN useradd --system --create-home --home-dir /var/lib/earthmapper --uid 10001 earthmapper
COPY --from=build /src/target/release/earthmapper /usr/local/bin/earthmapper
COPY --from=build /src/models/earthmapper-mini /usr/local/share/earthmapper/models/earthmapper-mini
COPY --from=build /src/LICENSE-MIT /src/LICENSE-APACHE /usr/local/share/earthmapper/
USER earthmapper
WORKDIR /var/lib/earthmapper
VOLUME /var/lib/earthmapper
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["earthmapper"]
CMD ["serve", "--listen", "0.0.0.0:8000", "--data", "/var/lib/earthmapper"]
