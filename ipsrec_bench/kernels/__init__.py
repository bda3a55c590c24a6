"""Code written for one kind of processor: Triton kernels for CUDA and the CPU's dropout.

Each has a plain twin in torch, which runs on any device and defines the result: `training/softmax.py` that of
`cross_entropy`, `ranking/rank.py` that of `screen`, `torch.nn.functional.dropout` that of `dropout`.
"""
