"""Data parallelism beyond one gradient a step: averaging now and then, and a parameter server.

The training loop takes them by `TrainConfig.strategy`: `"ddp"` averages gradients in every step,
`"local_sgd"` weights every `sync_every` steps, and `"async_ps"` sends gradients to a server whose
workers may be `staleness` steps apart.
"""
