"""`upkeep rehearse`: years of continuous training in simulated time, and what each policy is worth."""
