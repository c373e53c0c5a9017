"""Results as tables: Arrow always, pandas where it is installed."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from vggsearch.errors import InstallationError

Table: TypeAlias = Any  # pyarrow.Table: pyarrow has no type hints, and is imported when the first table is created
DataFrame: TypeAlias = Any  # pandas.DataFrame: pandas is optional
Row = Sequence[object]  # one value per column, None if missing


class Tabular(ABC):
    """A result that converts to a table.

    >>> index.query("photos/a.jpg").to_arrow().column_names[:4]
    ['query', 'rank', 'path', 'similarity']
    """

    @abstractmethod
    def to_arrow(self) -> Table:
        """Return a pyarrow.Table, which Polars and DuckDB also read."""

    def to_pandas(self) -> DataFrame:
        """Return the table as a pandas.DataFrame. Raises InstallationError without pandas."""
        try:
            import pandas  # noqa: F401
        except ModuleNotFoundError as error:
            raise InstallationError("to_pandas() needs pandas: pip install pandas") from error
        return self.to_arrow().to_pandas()


def arrow_table(columns: Mapping[str, str], rows: Iterable[Row]) -> Table:
    """Return rows as a pyarrow.Table. `columns` maps each name to an Arrow type such as "timestamp[ms]"."""
    import pyarrow as pa

    values = list(zip(*rows, strict=True)) or [()] * len(columns)
    types = [pa.type_for_alias(name) for name in columns.values()]
    arrays = [pa.array(column, kind) for column, kind in zip(values, types, strict=True)]
    return pa.table(arrays, names=list(columns))
