# The coordinator and the bank example in one image, and Toxiproxy in another:
#   docker build --target handfast .      docker build --target toxiproxy .
FROM python:3.13-slim AS handfast
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
WORKDIR /app
COPY requirements.txt .
RUN pip install --require-hashes --no-deps -r requirements.txt
COPY . .
RUN pip install --no-build-isolation --no-deps . \
    && useradd --create-home --uid 10001 handfast \
    && mkdir /data && chown handfast /data
USER handfast
VOLUME /data
EXPOSE 7400
ENTRYPOINT ["handfast"]
CMD ["serve"]

FROM golang:1.25 AS toxiproxy
RUN GOBIN=/usr/local/bin go install github.com/Shopify/toxiproxy/v2/cmd/server@v2.12.0
USER nobody
ENTRYPOINT ["/usr/local/bin/server", "-host", "0.0.0.0"]
