"""The two illustrative examples of Xu et al. 2018, section 2: reproduced and explained.

Read in this order: `settings` (the switches), `chains` (the two Markov reward processes),
`simulation` (all runs of an experiment in one graph), `chain_results` (table and files),
`chain_figure`, then `explanations` and `explained_figure` (why the results are what they are).
"""
