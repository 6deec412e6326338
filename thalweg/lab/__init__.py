"""The lab: races between optimizers, and what they say.

In the order of the work: `tasks` (what is trained); `contestants`, `protocol`, `plan` (declared before any run);
`search`, `run`, `pool`, `store` (the runs) and `timing` (the quiet pass); `race` (which drives them); `stats`,
`evidence`, `verdict`, `wording`, `honesty`, `summary` (what they say); `script`, `report` (what the user takes home).
"""
