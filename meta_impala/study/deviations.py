"""What was done otherwise than the design says (testdata/study/README.md), in order of time."""

DEVIATIONS = (
    "Part 1 also selects β of the learned arms (5 values × 3 seeds, as part 2 does). The values "
    "are ten times larger, because a run has 320 or 640 updates.",
    "Part 1 runs with a constant learning rate: the task that switches must be learnable in its "
    "second half.",
    "M plays its evaluation games at the γ of F*. At which γ it would be best was not measured.",
    "In the confirmation all A-γλ runs come first, because Y and C need them.",
    "Part 4 starts γ at .9: on Patience that lies below what the task needs (.906). β is 0.03 "
    "there and 0.001 on Breakout.",
    "Switching has an arm R, the right γ in each phase, for the acceptance test of the task (10 "
    "seeds).",
    "All runs of part 1 are of one commit and one machine. 210 of them had been made before, at "
    "another commit and on another machine, and were looked at then (5 or 6 seeds); they were made "
    "again with the rest: all 4,200 evaluations that both have are equal to the bit.",
    "Every run is `--deterministic`, so that each cell can be repeated to the bit.",
    "Switching is another task than at first. The former one (a lottery of σ 10 paid once, then a "
    "reward delayed by 7 steps) failed its acceptance test: the best constant, γ .99, lost 12 % of "
    "area and 29 % of the area above random actions (2 of 10 seeds). Its 34 runs (15 of learned γ, "
    "λ) are not counted; they are in the history of the repository. The present task was made by "
    "trials of constants and R alone, on seeds 1 and 2; no learned run of it was made before it "
    "was fixed. Its acceptance test has seeds of its own (101 to 110).",
    "`laptop.flags`, which part 3 uses, was tuned again on Pong (seed 1, plain) before any run of "
    "part 3 was made: images without their background, Adam, less entropy, λ from .95. Part 3's "
    "arms set γ and λ themselves.",
    "Part 4 was run before part 2, because it is much cheaper. Its runs are of one "
    "commit and two machines (AMD EPYC; 22 of the last runs on Breakout Intel Xeon).",
    "Part 2 was begun with one game, Breakout, selection and confirmation, because one game that "
    "is whole says more than the selection of five. It was chosen before any run of part 2, but "
    "after part 4, where Breakout had been seen (η learned from γ .9, seeds 11 to 13, which part 2 "
    "uses too). `study.flags` was tuned on Breakout and Patience with γ .99 fixed, which may "
    "favour F(.99) there. F** needs the selection of all games; its runs follow.",
    "Part 3 was begun with A on Breakout, seed 11.",
)
