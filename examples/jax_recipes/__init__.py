"""What the recipes in JAX share: a sharded training loop, and the networks in Equinox."""

from ._options import Settings as Settings, training_options as training_options
from ._sharding import mesh_of as mesh_of, place as place, sharding_of as sharding_of
from ._t5 import (
    IGNORED as IGNORED,
    load_t5 as load_t5,
    make_sharded_t5 as make_sharded_t5,
    make_t5 as make_t5,
    shard_t5 as shard_t5,
    T5 as T5,
    t5_loss as t5_loss,
    T5_SHAPES as T5_SHAPES,
    t5_sharding as t5_sharding,
    T5Shape as T5Shape,
)
from ._train import Batch as Batch, make_optimizer as make_optimizer, Recipe as Recipe, train as train
from ._vit import (
    load_vit as load_vit,
    make_vit as make_vit,
    named as named,
    ViT as ViT,
    VIT_SHAPES as VIT_SHAPES,
    ViTShape as ViTShape,
)
from ._weights import read_config as read_config, read_weights as read_weights
