"""Estimators of the meta-gradient, one per file."""

from ._evolution import EvolutionStrategies as EvolutionStrategies
from ._imitation import Imitation as Imitation
from ._interface import AbstractEstimator as AbstractEstimator, draw as draw, Estimate as Estimate
from ._persistent import PersistentEvolution as PersistentEvolution
from ._truncated import TruncatedBackpropagation as TruncatedBackpropagation
