"""What all drawings share: panels, a legend of every line, and the bytes of a file."""

import io
import math
from typing import Any, TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def panels(count: int, columns: int, width: float, height: float) -> "tuple[Figure, list[Any]]":
    """A figure without a window, with this many panels of a size in inches, at most `columns` beside each other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(columns, count)
    lines = math.ceil(count / columns)
    figure = Figure(figsize=(columns * width, lines * height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for empty in axes[count:]:
        empty.set_axis_off()
    return figure, axes[:count]


def add_legend(figure: "Figure", **options: Any) -> None:
    """Names every line of all panels once, below them."""
    lines = {str(line.get_label()): line for axes in figure.axes for line in axes.lines}
    if lines:
        figure.legend(list(lines.values()), list(lines), loc="outside lower center", **options)


def png(figure: "Figure", dpi: int) -> bytes:
    """The figure as a PNG file."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=dpi)
    return image.getvalue()
