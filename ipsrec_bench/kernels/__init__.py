"""Code written for one kind of processor: Triton kernels for CUDA and the CPU's dropout.

Each has a plain counterpart in torch, which runs on any device and defines the result: `training/softmax.py` for
`cross_entropy`, `ranking/rank.py` for `screen`, `torch.nn.functional.dropout` for `dropout`.
"""
