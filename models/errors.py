"""Why a number cannot be computed.

ModelError
├── NoTrainRows         nothing to learn from
├── TestRowInTraining   a row of a test split was handed to training
├── InvalidParams       a hyper-parameter that the head does not have, or out of range
├── WrongShape          features of another length than the head's
├── NotFiniteInput      NaN or infinity among the features
├── BackboneError       a network cannot be had, or not on this device
│   ├── NoWeights       its weights are neither here nor to be fetched, or do not fit
│   ├── UnknownLayer    no such layer, or one that gives no features
│   └── UnpooledMap     a map where one vector an image is wanted
├── NoRoom              neither memory nor disk holds the train rows
├── DamagedHead         stored arrays that are not those of a head
├── BadHeadFile         a file without the weights of a head that fits the backbone
├── HeadsDiffer         two heads that cannot be made one
└── LabelsMissing       the label sets that timm ships cannot be had
"""


class ModelError(Exception):
    """Root of this family; the message says what was wanted, what came, what to do."""

    code = "model_error"


class NoTrainRows(ModelError):
    """There is nothing to learn from."""

    code = "no_train_rows"


class TestRowInTraining(ModelError):
    """A row of a test split was handed to training: the one thing that must never happen."""

    code = "test_row_in_training"
    __test__ = False  # not a test class, whatever its name begins with


class InvalidParams(ModelError):
    """A hyper-parameter that the head does not have, or out of its range."""

    code = "invalid_params"


class WrongShape(ModelError):
    """Features of another length than the head was trained on."""

    code = "wrong_shape"


class NotFiniteInput(ModelError):
    """NaN or infinity among the features."""

    code = "not_finite_input"


class BackboneError(ModelError):
    """A network cannot be had, or not on this device."""

    code = "backbone"


class NoWeights(BackboneError):
    """The weights of a network are neither here nor to be fetched, or do not fit it."""

    code = "no_weights"


class UnknownLayer(BackboneError):
    """The network has no such layer, or it gives no features."""

    code = "unknown_layer"


class UnpooledMap(BackboneError):
    """A map of features where one vector an image is wanted."""

    code = "unpooled_map"


class NoRoom(ModelError):
    """Neither memory nor disk holds the train rows."""

    code = "no_room"


class DamagedHead(ModelError):
    """Stored arrays that are not those of a head."""

    code = "damaged_head"


class BadHeadFile(ModelError):
    """A file without the weights of a head, or of one that does not fit the backbone."""

    code = "bad_head_file"


class HeadsDiffer(ModelError):
    """Two heads that cannot be made one: not linear, or of other features or classes."""

    code = "heads_differ"


class LabelsMissing(ModelError):
    """The label sets that timm ships cannot be had."""

    code = "labels_missing"
