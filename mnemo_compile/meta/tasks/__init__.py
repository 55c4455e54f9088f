"""The tasks that optimizers are meta-trained and judged on."""

from ._data import (
    AbstractData as AbstractData,
    AbstractDataConfig as AbstractDataConfig,
    Batch as Batch,
    Part as Part,
    PARTS as PARTS,
)
from ._family import (
    AbstractFamily as AbstractFamily,
    DataConfig as DataConfig,
    FamilyConfig as FamilyConfig,
    Quadratic as Quadratic,
    QuadraticConfig as QuadraticConfig,
    Supervised as Supervised,
    SupervisedConfig as SupervisedConfig,
)
from ._networks import (
    AbstractNetwork as AbstractNetwork,
    AbstractNetworkConfig as AbstractNetworkConfig,
    NetworkConfig as NetworkConfig,
    Params as Params,
    Tensor as Tensor,
)
