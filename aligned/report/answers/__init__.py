"""What pages conclude, in sentences that their records choose, so that they stay true when records are added.

The files, and the pages that each serves:

    words.py          what a difference is called: the other files, and `dead_features`
    ends.py           at which L0 a difference arises: `dead_features`, `recovered_ce`, `stability`
    low_mode.py       where scores are of two kinds: `bimodality`
    feature_quality.py, stability.py, recovered_ce.py
                      each the page of its name; `bimodality` takes a sentence from the first
    formulas.py, causes.py, behaviour.py
                      another formula; another start, or no mean; held-out text: `is_it_the_constraint`
    starts.py         the start of ReLU SAEs: `is_it_the_constraint`, `recovered_ce`, the first page, the slides
    rates.py          another learning rate: the first page
    deaths.py         the mean, the start and dead features: `toy_to_gemma`, `dead_features`
"""
