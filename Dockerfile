# docker build -t ctscribe .                        on a CPU
# docker build -t ctscribe:cuda --target cuda .     on NVIDIA's GPUs; run it with --gpus all
#
# docker run --rm -v /scans:/scans:ro -v "$PWD":/work ctscribe report /scans/series --run run --out draft
# docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD":/work ctscribe serve run --host 0.0.0.0
#
# Research use only. Not a medical device. Do not use for clinical decisions.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS wheel
ENV PIP_NO_CACHE_DIR=1 PIP_CONSTRAINT=/build/requirements.lock
WORKDIR /build
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY src src
COPY recipes recipes
COPY starts starts
RUN pip wheel --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim AS both
ENV PIP_NO_CACHE_DIR=1 PIP_CONSTRAINT=/wheels/requirements.lock
ENV PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
COPY requirements.lock /wheels/
COPY --from=wheel /wheels /wheels
RUN useradd --create-home --uid 1000 scribe
WORKDIR /work
ENTRYPOINT ["ctscribe"]
CMD ["--help"]

# PyPI's torch for Linux brings CUDA with it; pip prefers 2.x+cpu, where it finds that, to 2.x
FROM both AS cuda
RUN pip install "$(echo /wheels/ctscribe-*.whl)[dicom-codecs,serve]"
USER scribe

FROM both AS cpu
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu \
    "$(echo /wheels/ctscribe-*.whl)[dicom-codecs,serve]"
USER scribe
