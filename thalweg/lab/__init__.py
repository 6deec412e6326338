"""The lab: races between optimizers, and what they say.

In the order of the work: `tasks` (what is trained), `contestants` and `protocol` (declared before any run), `search`,
`run`, `pool` and `store` (the runs), `timing` (the quiet pass), `stats` and `verdict`, `honesty`, `race` (all of it), `report`.
"""
