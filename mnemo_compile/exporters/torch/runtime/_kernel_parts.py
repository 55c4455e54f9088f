# Triton's language is no Python that a type checker knows.
# pyright: basic, reportGeneralTypeIssues=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportArgumentType=false
"""What the generated kernels have in common: where a block lies, sums of blocks, and functions that Triton lacks.

The first rows of numbers of tensors are the clock, and whether the step is taken.
A table has `COLUMNS` numbers for each tensor. Those of a tensor that is read by chunks are its row, its size, its
chunks, the coordinates and the chunks of a run, the sizes of up to four axes, the strides of these axes in the
parameter and in the gradient, and a bit for each memory slot that it has. Those of a tensor with tiles are its row, the
height and the width of a tile, rows and columns of a matrix, tiles down and across, and the strides of matrices, rows
and columns in the parameter, the gradient and the memory.

Loops over a number that is known on the device alone are `while` loops, because the interpreters of some versions of
Triton cannot count in `range` with NumPy 2.4.
"""

import triton
import triton.language as tl

COLUMNS = tl.constexpr(20)

_SATURATED = tl.constexpr(7.90531110763549805)
"""From here on, tanh rounds to 1."""


@triton.jit
def chunk_places(entry, first, CHUNKS: tl.constexpr, LENGTH: tl.constexpr, PLAIN: tl.constexpr):
    """Where a block of chunks lies.

    Gives the first coordinate, the coordinates from there on, which of them there are, the chunks, and which of these
    there are. Where PLAIN, coordinates are consecutive, and their number is a multiple of four.
    """
    number = tl.arange(0, CHUNKS)[:, None]
    lane = tl.arange(0, LENGTH)[None, :]
    chunk = first + number
    is_chunk = chunk < tl.load(entry + 2)
    if PLAIN:
        base = first * LENGTH
        places = number * LENGTH + lane
        left = tl.minimum(tl.load(entry + 1) - base, CHUNKS * LENGTH).to(tl.int32)
        valid = places < tl.multiple_of(left, 4)
    else:
        base = first * 0
        run = tl.load(entry + 3)
        chunks = tl.load(entry + 4)
        within = chunk % chunks * LENGTH + lane
        places = chunk // chunks * run + within
        valid = is_chunk & (within < run)
    return base, places, valid, chunk, is_chunk


@triton.jit
def from_base(pointer, base, WIDTH: tl.constexpr, PLAIN: tl.constexpr):
    """The pointer to what a memory slot of WIDTH numbers holds of the first coordinate of a block."""
    first = pointer + base * WIDTH
    if PLAIN:
        first = tl.multiple_of(first, 16)
    return first


@triton.jit
def strided_places(entry, pointer, base, places, ARRAY: tl.constexpr, PLAIN: tl.constexpr):
    """Pointers to coordinates of the parameter (0) or the gradient (1)."""
    if PLAIN:
        pointers = tl.multiple_of(pointer + base, 16) + places
    else:
        rest = places
        offset = places * 0
        for back in tl.static_range(4):
            size = tl.load(entry + 8 - back)
            offset += rest % size * tl.load(entry + 12 - back + 4 * ARRAY)
            rest = rest // size
        pointers = pointer + offset
    return pointers


@triton.jit
def tile_places(entry, place, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, PLAIN: tl.constexpr):
    """Where a tile lies: its matrix, its first row and column, which of its places there are, and its longer side.

    Where PLAIN, columns are consecutive, and all sizes and strides are multiples of four.
    """
    height = tl.load(entry + 1)
    width = tl.load(entry + 2)
    down = tl.load(entry + 5)
    across = tl.load(entry + 6)
    column = place % across * width
    row = place // across % down * height
    matrix = place // across // down
    tall = tl.minimum(height, tl.load(entry + 3) - row).to(tl.int32)
    wide = tl.minimum(width, tl.load(entry + 4) - column).to(tl.int32)
    if PLAIN:
        wide = tl.multiple_of(wide, 4)
    valid = (tl.arange(0, HEIGHT)[:, None] < tall) & (tl.arange(0, WIDTH)[None, :] < wide)
    return matrix, row, column, valid, tl.maximum(tall, wide).to(tl.float32)


@triton.jit
def tile_pointers(
    entry,
    pointer,
    matrix,
    row,
    column,
    ARRAY: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    PLAIN: tl.constexpr,
):
    """Pointers to the places of a tile in the parameter (0), the gradient (1) or the memory (2)."""
    strides = entry + 7 + 3 * ARRAY
    across = tl.load(strides + 1)
    first = pointer + (matrix * tl.load(strides) + row * across + column * tl.load(strides + 2))
    i = tl.arange(0, HEIGHT)[:, None]
    j = tl.arange(0, WIDTH)[None, :]
    if PLAIN:
        pointers = tl.multiple_of(first, 16) + (i * tl.multiple_of(across.to(tl.int32), 4) + j)
    else:
        pointers = first + (i * across + j * tl.load(strides + 2))
    return pointers


@triton.jit
def tile_order(HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    """The places of a tile in a block of its own."""
    return tl.arange(0, HEIGHT)[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]


@triton.jit(do_not_specialize=["tensors", "count", "first"])
def add_sums(
    partials,
    ranges,
    rows,
    checks,
    step,
    tensors,
    count,
    first,
    SUMS: tl.constexpr,
    DECIDES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Adds the sums of blocks for each tensor, always in the same order, and notes whether they are finite."""
    tensor = tl.program_id(0)
    begin = tl.load(ranges + tensor)
    end = tl.load(ranges + tensors + tensor)
    finite = 1.0
    for number in tl.static_range(SUMS):
        total = tl.zeros((BLOCK,), tl.float32)
        start = begin
        while start < end:
            place = start + tl.arange(0, BLOCK)
            total += tl.load(partials + number * count + place, mask=place < end, other=0.0)
            start += BLOCK
        result = tl.sum(total, 0)
        tl.store(rows + (first + number) * tensors + tensor, result)
        finite = tl.where((result - result) == 0.0, finite, 0.0)
    if DECIDES:
        tl.store(checks + tensor, finite)
        tl.store(rows + tensor, tl.load(step).to(tl.float32))


@triton.jit(do_not_specialize=["tensors", "first"])
def settle(
    rows,
    checks,
    step,
    skipped,
    tensors,
    first,
    SUMS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Decides whether the step is taken, counts it, and gives sums over the network to all tensors."""
    finite = tl.zeros((BLOCK,), tl.float32) + 1.0
    start = tensors * 0
    while start < tensors:
        tensor = start + tl.arange(0, BLOCK)
        finite = tl.minimum(finite, tl.load(checks + tensor, mask=tensor < tensors, other=1.0))
        start += BLOCK
    taken = tl.min(finite, 0)
    steps = tl.load(step)
    refused = tl.load(skipped)
    # All is read before anything is written.
    tl.debug_barrier()
    tl.store(step, steps + taken.to(tl.int64))
    tl.store(skipped, refused + 1 - taken.to(tl.int64))
    start = tensors * 0
    while start < tensors:
        tensor = start + tl.arange(0, BLOCK)
        tl.store(rows + tensors + tensor, taken + tl.zeros((BLOCK,), tl.float32), mask=tensor < tensors)
        start += BLOCK
    for number in tl.static_range(SUMS):
        terms = rows + (first + number) * tensors
        total = tl.zeros((BLOCK,), tl.float32)
        start = tensors * 0
        while start < tensors:
            tensor = start + tl.arange(0, BLOCK)
            total += tl.load(terms + tensor, mask=tensor < tensors, other=0.0)
            start += BLOCK
        result = tl.sum(total, 0) + tl.zeros((BLOCK,), tl.float32)
        tl.debug_barrier()
        start = tensors * 0
        while start < tensors:
            tensor = start + tl.arange(0, BLOCK)
            tl.store(terms + tensor, result, mask=tensor < tensors)
            start += BLOCK


@triton.jit(do_not_specialize=["tensors", "count"])
def gather_sample(
    table,
    targets,
    owners,
    chunks,
    pointers,
    sample,
    tensors,
    count,
    ARRAY: tl.constexpr,
    DTYPE: tl.constexpr,
    WIDTH: tl.constexpr,
    PER_CHUNK: tl.constexpr,
    LENGTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Writes rows of a sample: chunks of the parameters (0), the gradients (1) or a memory slot (from 2 on).

    A memory slot has WIDTH numbers per coordinate or, with PER_CHUNK, per chunk. Where a chunk lacks a coordinate, or a
    tensor lacks the slot, there are zeros. Places beyond the last row write that row once more.
    """
    place = tl.minimum(tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), count - 1)[:, None]
    target = tl.load(targets + place).to(tl.int64)
    chunk = tl.load(chunks + target).to(tl.int64)
    # The rows of this table are those of all tensors.
    owner = tl.load(owners + target).to(tl.int64)
    entry = table + owner * COLUMNS
    pointer = tl.load(pointers + ARRAY * tensors + owner).to(tl.pointer_type(DTYPE))
    if PER_CHUNK:
        lane = tl.arange(0, 1)[None, :]
        places = chunk + lane
        valid = places >= 0
    else:
        lane = tl.arange(0, LENGTH)[None, :]
        run = tl.load(entry + 3)
        per_run = tl.load(entry + 4)
        within = chunk % per_run * LENGTH + lane
        places = chunk // per_run * run + within
        valid = within < run
    if ARRAY < 2:
        numbers = strided_places(entry, pointer, 0, places, ARRAY, False)
    else:
        numbers = pointer + places * WIDTH
        valid = valid & (((tl.load(entry + 17) >> (ARRAY - 2)) & 1) == 1)
    first = sample + (target * (1 if PER_CHUNK else LENGTH) + lane) * WIDTH
    for number in tl.static_range(WIDTH):
        tl.store(first + number, tl.load(numbers + number, mask=valid, other=0).to(tl.float32))


@triton.jit(do_not_specialize=["tensors"])
def move_states(pointers, states, tensors, ROW: tl.constexpr, SIZE: tl.constexpr, WRITE: tl.constexpr):
    """Reads the state of a tensor, which is SIZE numbers, into a row of `states`, or writes it from there."""
    tensor = tl.program_id(0)
    pointer = tl.load(pointers + ROW * tensors + tensor).to(tl.pointer_type(tl.float32))
    row = states + tensor.to(tl.int64) * SIZE
    for start in tl.static_range(0, SIZE, 256):
        place = start + tl.arange(0, 256)
        if WRITE:
            tl.store(pointer + place, tl.load(row + place, mask=place < SIZE), mask=place < SIZE)
        else:
            tl.store(row + place, tl.load(pointer + place, mask=place < SIZE), mask=place < SIZE)


@triton.jit
def dot(left, right, PRECISION: tl.constexpr):
    """A product of matrices, summed in float32. PRECISION is that of the factors.

    Triton's interpreter cannot multiply in bfloat16, so that there factors are only rounded ("rounded").
    """
    if PRECISION == "bfloat16":
        result = tl.dot(left.to(tl.bfloat16), right.to(tl.bfloat16))
    elif PRECISION == "rounded":
        result = tl.dot(
            left.to(tl.bfloat16).to(tl.float32), right.to(tl.bfloat16).to(tl.float32), input_precision="ieee"
        )
    else:
        result = tl.dot(left, right, input_precision=PRECISION)
    return result


@triton.jit
def add_dot(start, left, right, PRECISION: tl.constexpr):
    """A matrix and a product of matrices. The sum costs no registers."""
    if PRECISION == "bfloat16":
        result = tl.dot(left.to(tl.bfloat16), right.to(tl.bfloat16), acc=start)
    elif PRECISION == "rounded":
        result = start + dot(left, right, PRECISION)
    else:
        result = tl.dot(left, right, acc=start, input_precision=PRECISION)
    return result


@triton.jit
def is_finite(x):
    return (x - x) == 0.0


@triton.jit
def sign(x):
    return tl.where(x > 0.0, 1.0, tl.where(x < 0.0, -1.0, x))


@triton.jit
def to_bfloat16(x):
    """x rounded to the nearest number of bfloat16. It works on the bits, because a compiler removes conversions."""
    bits = x.to(tl.int32, bitcast=True)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
    return rounded.to(tl.float32, bitcast=True)


@triton.jit
def narrow(x, DTYPE: tl.constexpr):
    """x in the dtype of storage, rounded to the nearest number of it."""
    if DTYPE == tl.bfloat16:
        # Triton's interpreter cuts bits off.
        x = to_bfloat16(x)
    return x.to(DTYPE)


@triton.jit
def log1p(x):
    """log(1 + x), exact where 1 + x rounds to 1."""
    u = 1.0 + x
    return tl.where(u == 1.0, x, tl.log(u) * (x / (u - 1.0)))


@triton.jit
def expm1(x):
    """exp(x) − 1, exact where exp(x) rounds to 1."""
    u = tl.exp(x)
    return tl.where(u == 1.0, x, tl.where(tl.abs(x) > 1.0, u - 1.0, (u - 1.0) * (x / tl.log(u))))


@triton.jit
def power(x, y):
    """x to the power y, for x of at least 0."""
    return tl.where(x == 0.0, tl.where(y == 0.0, 1.0, 0.0), tl.exp2(y * tl.log2(x)))


@triton.jit
def tanh(x):
    """tanh as a quotient of polynomials, with the coefficients of Eigen. Its relative error is 4e-7."""
    x = tl.minimum(tl.maximum(x, -_SATURATED), _SATURATED)
    s = x * x
    p = ((s * -2.76076847742355e-16 + 2.00018790482477e-13) * s + -8.60467152213735e-11) * s + 5.12229709037114e-08
    p = ((p * s + 1.48572235717979e-05) * s + 6.37261928875436e-04) * s + 4.89352455891786e-03
    q = ((s * 1.19825839466702e-06 + 1.18534705686654e-04) * s + 2.26843463243900e-03) * s + 4.89352518554385e-03
    return x * p / q
