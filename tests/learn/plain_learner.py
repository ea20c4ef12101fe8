"""A learner that quantizes nothing: the loop and all around it by themselves."""

from amct_lite.learn.learner import Learner


class PlainLearner(Learner):
    def options(self):
        return {}

    def learned(self):
        return {}
