"""Why a load is refused. Each error says what was wanted, what came, where, and what to do.

LoadRefused
├── SourceNotFound      no such file, a folder without feature files, not a regular file
├── SourceName          the file's name does not say which split and backbone it is
├── SourceChanged       the file changed while it was read
├── NotCsv              another kind of file under this name
├── DamagedArchive      a packed file that is cut or does not match its checksum
├── ArchiveBomb         a packed file that unpacks out of all proportion
├── ArchiveMember       an archive without a feature file, or with one that cannot be read
├── Encoding            bytes that are not UTF-8
├── EmptyFile           no bytes, or a header without rows
├── HeaderMissing       the first line is data
├── HeaderMismatch      a column missing, twice, or of another file's set
├── DimensionMismatch   another number of features than the backbone's other splits
├── RaggedRow           a row with too few or too many cells, an unclosed quote
├── BadNumber           a feature that is not a number
├── NotFinite           NaN, infinity, or beyond float32
├── BadLabel            a label that is not a whole number from 0, or beyond the class names
├── RowCount            a matrix and its table of labels differ in length
├── BadPath             an empty path, or one with control characters
├── LabelConflict       one image with two labels
├── Leak                one path in train and in a test split
├── PathsFrom           --paths-from names a backbone whose rows do not match
├── BadConfidence       a confidence that is no number from 0 to 1
├── PredictionConflict  one image with two predictions of one model
├── Busy                another load is writing this data folder
├── DiskFull            no space left on the device
├── DiskFault           the disk, or the file on it, cannot be read or written
├── AnnotationRefused   annotations that were not attached; those that are there stay
│   ├── NoCovariate         no column beside split and path
│   ├── CovariateKind       a column of lists, times or other things that are no number or text
│   ├── AnnotationConflict  one image with two values
│   ├── AnnotationName      a name that cannot be a file
│   ├── AnnotationTaken     annotations of another origin have this name
│   ├── NotAttached         no annotations of this name
│   ├── NothingMatched      not one row means a loaded image
│   ├── UnknownSplit        --split names a split that is not loaded
│   └── ForeignLabels       class numbers that are not ImageNet's, beside labels that are
├── ImagesRefused       images that were not linked or measured; the links that are there stay
│   ├── RootNotFound        an image root that is no folder, or none at all
│   └── NothingLinked       statistics of images, but no image has a file
├── NothingLoaded       no database to match with yet
└── OtherShape          a database that this version did not write
"""

from pathlib import Path


class LoadRefused(Exception):
    """A load that was not done; the database is as it was before.

    Parameters
    ----------
    wanted, came, todo
        Three clauses for people: what a good file has here, what this one has, the remedy.
    file, line, column
        The place: `line` counts from 1 as editors do, `column` is the header's name.
    """

    code = "load_refused"

    def __init__(
        self,
        wanted: str,
        came: str,
        todo: str,
        *,
        file: Path | str | None = None,
        line: int | None = None,
        column: str | None = None,
    ) -> None:
        self.wanted, self.came, self.todo = wanted, came, todo
        self.file = None if file is None else str(file)
        self.line, self.column = line, column
        super().__init__(wanted, came, todo)

    def __str__(self) -> str:
        place = ", ".join(
            part
            for part in (
                self.file,
                None if self.line is None else f"line {self.line}",
                None if self.column is None else f"column {self.column!r}",
            )
            if part
        )
        return f"{place + ': ' if place else ''}wanted {self.wanted}, got {self.came}. {self.todo}"


class SourceNotFound(LoadRefused):
    """No such file, a folder without feature files, or not a regular file."""

    code = "source_not_found"


class SourceName(LoadRefused):
    """The name of a file or an option does not say which split of which backbone it is."""

    code = "source_name"


class SourceChanged(LoadRefused):
    """The file changed while it was read."""

    code = "source_changed"


class NotCsv(LoadRefused):
    """Another kind of file under this name, known by its first bytes."""

    code = "not_csv"


class DamagedArchive(LoadRefused):
    """A packed file that is cut short, or does not match its checksum."""

    code = "damaged_archive"


class ArchiveBomb(LoadRefused):
    """A packed file that unpacks to more than the stated ratio."""

    code = "archive_bomb"


class ArchiveMember(LoadRefused):
    """An archive that holds no feature file, or one that is encrypted, a link or a device."""

    code = "archive_member"


class Encoding(LoadRefused):
    """Bytes that are not UTF-8."""

    code = "encoding"


class EmptyFile(LoadRefused):
    """No bytes at all, or a header without rows."""

    code = "empty_file"


class HeaderMissing(LoadRefused):
    """The first line is data, so that a row would be swallowed as names."""

    code = "header_missing"


class HeaderMismatch(LoadRefused):
    """A column is missing, named twice, or not of the backbone's set."""

    code = "header_mismatch"


class DimensionMismatch(LoadRefused):
    """Another number of features than the backbone's other splits have."""

    code = "dimension_mismatch"


class RaggedRow(LoadRefused):
    """A row with too few or too many cells, or with an unclosed quote."""

    code = "ragged_row"


class BadNumber(LoadRefused):
    """A feature that is not a number."""

    code = "bad_number"


class NotFinite(LoadRefused):
    """NaN, infinity, or a number beyond float32."""

    code = "not_finite"


class BadLabel(LoadRefused):
    """A label that is not a whole number from 0, or beyond the class names given."""

    code = "label_out_of_range"


class RowCount(LoadRefused):
    """A matrix and the table of its labels differ in length."""

    code = "row_count_mismatch"


class BadPath(LoadRefused):
    """An empty path, or one with control characters."""

    code = "bad_path"


class LabelConflict(LoadRefused):
    """One image with two labels."""

    code = "label_conflict"


class Leak(LoadRefused):
    """One path in a split of role train and in a test split."""

    code = "leak"


class PathsFrom(LoadRefused):
    """`--paths-from` names a backbone whose rows do not match row by row."""

    code = "paths_from"


class BadConfidence(LoadRefused):
    """A confidence that is no number from 0 to 1."""

    code = "bad_confidence"


class PredictionConflict(LoadRefused):
    """One image with two predictions of one model, or one class twice among its five."""

    code = "prediction_conflict"


class Busy(LoadRefused):
    """Another load is writing this data folder."""

    code = "load_busy"


class DiskFull(LoadRefused):
    """No space left on the device."""

    code = "disk_full"


class DiskFault(LoadRefused):
    """The disk, or the file on it, cannot be read or written."""

    code = "disk_fault"


class AnnotationRefused(LoadRefused):
    """Annotations that were not attached; those that are there stay as they are."""

    code = "annotation_refused"


class NoCovariate(AnnotationRefused):
    """No column beside split and path."""

    code = "no_covariate"


class CovariateKind(AnnotationRefused):
    """A column of lists, times or other things that are neither numbers nor texts."""

    code = "covariate_kind"


class AnnotationConflict(AnnotationRefused):
    """One image with two values of one covariate."""

    code = "annotation_conflict"


class AnnotationName(AnnotationRefused):
    """A name that cannot be a file."""

    code = "annotation_name"


class AnnotationTaken(AnnotationRefused):
    """Annotations of another origin have this name already."""

    code = "annotation_taken"


class NotAttached(AnnotationRefused):
    """No annotations of this name."""

    code = "not_attached"


class NothingMatched(AnnotationRefused):
    """Not one row means a loaded image."""

    code = "nothing_matched"


class UnknownSplit(AnnotationRefused):
    """A split that is not loaded."""

    code = "unknown_split"


class ForeignLabels(AnnotationRefused):
    """Class numbers in another order than ImageNet's, where its labels are to be compared."""

    code = "foreign_labels"


class ImagesRefused(LoadRefused):
    """Images that were not linked or measured; the links that are there stay."""

    code = "images_refused"


class RootNotFound(ImagesRefused):
    """An image root that is no readable folder, or none at all."""

    code = "root_not_found"


class NothingLinked(ImagesRefused):
    """Statistics of images are wanted, but no image has a file."""

    code = "nothing_linked"


class NothingLoaded(LoadRefused):
    """The data folder holds no database to match with yet."""

    code = "nothing_loaded"


class OtherShape(LoadRefused):
    """A database that this version of Gapscope did not write."""

    code = "other_shape"
