# The program for CPUs, with its weights:
#   docker build -t mhnet-video .
#   docker run --rm --no-healthcheck -v "$PWD:/data" --user "$(id -u)" mhnet-video in.mp4 out.mp4
# compose.yaml runs it beside a camera and MediaMTX.
FROM python:3.13-slim AS build
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir -c constraints.txt build setuptools
RUN python -m build --no-isolation --wheel

FROM python:3.13-slim
# OpenCV's wheel wants these, also without a screen
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/constraints.txt /src/dist/*.whl /tmp/
# PyPI's PyTorch brings 2.5 GB of CUDA along
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu \
        "$(grep ^torch== /tmp/constraints.txt)" \
    && pip install --no-cache-dir -c /tmp/constraints.txt "$(ls /tmp/*.whl)[cpu,web,batch,gpx]" \
    && rm /tmp/*.whl
RUN useradd --create-home --uid 1000 mhnet
USER mhnet
WORKDIR /data
# a user by another number has no home: compiled kernels are kept here while the container is
ENV XDG_CACHE_HOME=/tmp/cache
EXPOSE 8080
# of `live --serve 0.0.0.0:8080`; other commands have no page: --no-healthcheck
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["mhnet-video"]
CMD ["--help"]
