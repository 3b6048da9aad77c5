"""The questions that the chapters and the evidence ask, one file a question.

A study is a function of a Cohort, a preset and seeds that returns numbers. ``study`` and ``study_stats``
hold what they share: budgets, one training, differences with the variance of patients and of seeds.
"""
