"""The method as pure functions of tensors: no flags, files, threads or environments.

Read in this order: `vtrace` (the return, with γ and λ), `losses` (J and J'), `meta_parameters` (η),
`objectives` (J and J' as functions of θ and x), `optimizers`, `update_rule` (U), `meta_gradient`
(dJ'/dx through one update), `window_gradient` (through K updates).
"""
