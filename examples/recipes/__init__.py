"""What the recipes share: a training on `accelerate`, its run folder, comparisons, data and checkpoints."""

from ._cache import made as made
from ._comparison import perform as perform
from ._errors import check_length as check_length, reachable as reachable
from ._freezing import freeze as freeze
from ._images import (
    columns_of as columns_of,
    DatasetImages as DatasetImages,
    digits as digits,
    image_folder as image_folder,
    shapes as shapes,
)
from ._options import Settings as Settings, training_options as training_options
from ._t5 import (
    SpanCorruption as SpanCorruption,
    t5_config as t5_config,
    T5_SHAPES as T5_SHAPES,
    t5_special as t5_special,
)
from ._task import Example as Example, IGNORED as IGNORED, pad as pad, Source as Source, split as split, Task as Task
from ._text import (
    blocks as blocks,
    interpreter_sources as interpreter_sources,
    read_jsonl as read_jsonl,
    read_texts as read_texts,
    train_tokenizer as train_tokenizer,
)
from ._topics import minilm as minilm, statements as statements
from ._vit import vit_config as vit_config, VIT_SHAPES as VIT_SHAPES
