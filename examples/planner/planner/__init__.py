"""Planner: who and what works on which project, week by week."""
