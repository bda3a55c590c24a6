# Image of ipsrec-bench, by default with the CPU build of torch.
#   docker build -t ipsrec-bench .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" ipsrec-bench run quick
# With an empty TORCH_INDEX, torch comes from the Python Package Index, whose Linux build includes CUDA. The index of
# another CUDA version can be given instead.
#   docker build -t ipsrec-bench:cuda --build-arg TORCH_INDEX= .
#   docker run --rm --gpus all --shm-size 1g --user "$(id -u):$(id -g)" -v "$PWD:/work" ipsrec-bench:cuda run quick
ARG PYTHON=3.11
FROM python:${PYTHON}-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /opt/ipsrec-bench
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY ipsrec_bench ipsrec_bench
COPY suites suites
RUN pip install --no-cache-dir -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} '.[all]'

WORKDIR /work
ENV HOME=/tmp
ENTRYPOINT ["ipsrec-bench"]
