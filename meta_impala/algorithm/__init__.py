"""The method as pure functions of tensors: no flags, files, threads or environments.

Read in this order: `vtrace` (the return), `losses` (J and J'), `optimizers` (the step U),
`meta_parameters` (η), `meta_gradient` (dJ'/dη through the step).
"""
