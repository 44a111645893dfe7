"""The one loop, optimisers, schedules, checkpoints, averaged weights and distributed modes.

    from understudy.train.config import TrainConfig
    from understudy.train.loop import fit
    from understudy.train.classifier_steps import ClassifierStep
    from understudy.train.steps import ClipStep

Importing this room costs nothing: torch is imported with the loop.
"""
