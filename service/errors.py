"""The service's own refusals, and the one table that turns every refusal into an HTTP answer.

Core errors know no HTTP. `status_of` looks an error up by its class ancestry, nearest first; what
is not in the table is our fault and becomes a 500.
"""

from etl.errors import (
    AnnotationTaken,
    Busy,
    DiskFault,
    DiskFull,
    LoadRefused,
    NotAttached,
    NothingLinked,
    NothingLoaded,
    OtherShape,
)
from models.errors import (
    BackboneError,
    BadHeadFile,
    DamagedHead,
    HeadsDiffer,
    InvalidParams,
    LabelsMissing,
    ModelError,
    NoRoom,
    NotFiniteInput,
    NoTrainRows,
    TestRowInTraining,
    WrongShape,
)


class ServiceError(Exception):
    """Root of the service's refusals; the message says what was wanted, what came, what to do."""

    code = "service_error"


class UnknownSetting(ServiceError):
    """A GAP_ name in the environment that is no setting."""

    code = "unknown_setting"


class BadSetting(ServiceError):
    """A GAP_ setting with a value of the wrong kind or out of range."""

    code = "bad_setting"


class NotReady(ServiceError):
    """An answer whose job failed or was cancelled."""

    code = "not_ready"


class TooFewImages(ServiceError):
    """A self-test of a set from which no sets can be made."""

    code = "too_few_images"


class NothingToLoad(ServiceError):
    """A load without a file, folder or option."""

    code = "nothing_to_load"


class UnusedOption(ServiceError):
    """An option that means nothing beside another one."""

    code = "unused_option"


class NoDatabase(ServiceError):
    """The data folder holds no database yet, or one that cannot be read."""

    code = "no_database"


class NotFound(ServiceError):
    """No such model, backbone, split, job or chart."""

    code = "not_found"


class ModelExists(ServiceError):
    """The name is taken by a model or by a job that will make it."""

    code = "model_exists"


class DataChanged(ServiceError):
    """The model was trained on features that the database no longer holds."""

    code = "data_changed"


class DamagedModel(ServiceError):
    """A file of a model that is not as it was stored: the model is set aside, the others stay."""

    code = "damaged_model"


class TestWasTrained(ServiceError):
    """Images that the model learnt from stand in a test split now: no score of it would count."""

    code = "test_was_trained"
    __test__ = False  # not a test class, whatever its name begins with


class NotTrainedHere(ServiceError):
    """A head whose weights were given or made of others, where one is wanted to be fitted again."""

    code = "not_trained_here"


class ImportedModel(ServiceError):
    """A model of which only the predictions are here, where its head is wanted."""

    code = "imported_model"


class NoFeatures(ServiceError):
    """A chart of features of a model that has none here."""

    code = "no_features"


class NothingToDraw(ServiceError):
    """A chart of a training that left nothing which it could show."""

    code = "nothing_to_draw"


class BadName(ServiceError):
    """A model name with characters that a folder or an address should not have."""

    code = "bad_name"


class BadLine(ServiceError):
    """Published accuracies that cannot be read, or whose name is taken."""

    code = "bad_line"


class NotATest(ServiceError):
    """A split of role train where a test split is wanted, or one split twice."""

    code = "not_a_test"


class LookNotLogged(ServiceError):
    """A read of test labels that could not be written down, and so was not done."""

    code = "look_not_logged"


class RecordNotKept(ServiceError):
    """A record that cannot be added: the file cannot be written."""

    code = "record_not_kept"


class RecordChanged(ServiceError):
    """A stored record is not as it was written."""

    code = "record_changed"


class AlreadyScored(ServiceError):
    """A hypothesis of which a score is known, so that it can no longer be foretold."""

    code = "already_scored"


class AlreadyRegistered(ServiceError):
    """The same refinement of the same head on the same images, under whatever title or family."""

    code = "already_registered"


class BadHypothesis(ServiceError):
    """What is no hypothesis."""

    code = "bad_hypothesis"


class ReadsTestInputs(ServiceError):
    """A recipe that would change a head by the images that judge it."""

    code = "reads_test_inputs"


class AlreadySeen(ServiceError):
    """A prediction of what was seen before, or is sealed."""

    code = "already_seen"


class SealWanted(ServiceError):
    """A read of test labels that wants a seal first, and has none."""

    code = "seal_wanted"


class BadFilter(ServiceError):
    """A condition on images, or an order of them, that is none."""

    code = "bad_filter"


class BadReport(ServiceError):
    """A report.json, or what came with it, that cannot be reproduced: it asks for what is none."""

    code = "bad_report"


class BundleTooLarge(ServiceError):
    """A bundle that would be larger than one may be."""

    code = "bundle_too_large"


class NoPicture(ServiceError):
    """An image that cannot be shown."""

    code = "no_picture"


class NotLinked(NoPicture):
    """No file, or no single one, was found for the image."""

    code = "not_linked"


class FileGone(NoPicture):
    """The linked file is not there any more, or is none that is opened."""

    code = "file_gone"


class NotAnImage(NoPicture):
    """The linked file cannot be decoded."""

    code = "not_an_image"


class JobDone(ServiceError):
    """The job is over and cannot be cancelled."""

    code = "job_done"


class NotResumable(ServiceError):
    """The job waits, runs or is done: there is nothing to go on with."""

    code = "not_resumable"


class QueueFull(ServiceError):
    """So many jobs wait that no more are taken."""

    code = "queue_full"
    retry_after_s = 30


class TooManyWait(ServiceError):
    """So many requests are held until a job ends that no more are."""

    code = "too_many_wait"
    retry_after_s = 5


class KeyReused(ServiceError):
    """Another request was sent under the same Idempotency-Key."""

    code = "key_reused"


class DamagedStream(ServiceError):
    """A body that is no Arrow stream, or not one with the features that the model reads."""

    code = "damaged_stream"


class BackboneNotHere(ServiceError):
    """The network behind a model's features is unknown here, or cannot be run."""

    code = "backbone_not_here"


class InUse(ServiceError):
    """Another service or extraction is at work on this folder, or a service on this port."""

    code = "in_use"


class BadImages(ServiceError):
    """A folder of images from which no labels follow, or labels that fit no image."""

    code = "bad_images"


class UnreadableImage(ServiceError):
    """A file among the images that cannot be decoded."""

    code = "unreadable_image"


class ClassesDisagree(ServiceError):
    """A class folder has another label than in another split of the same backbone."""

    code = "classes_disagree"


class ExtractionChanged(ServiceError):
    """What lies there was extracted with other settings or from other images."""

    code = "extraction_changed"


class TokenWanted(ServiceError):
    """An address that others reach, and no token."""

    code = "token_wanted"


class WeakToken(ServiceError):
    """A token that can be guessed."""

    code = "weak_token"


class OpenTokenFile(ServiceError):
    """A token's file that is none, or that others may read."""

    code = "open_token_file"


class BadTitlePage(ServiceError):
    """A title page that cannot be read, or whose shares are not the whole."""

    code = "bad_title_page"


class BadText(ServiceError):
    """An author's text of no chapter, or one that cannot be taken."""

    code = "bad_text"


STATUS: dict[type[Exception], int] = {
    ServiceError: 500,
    UnknownSetting: 500,
    BadSetting: 500,
    InUse: 500,
    TokenWanted: 500,
    WeakToken: 500,
    OpenTokenFile: 500,
    NothingToLoad: 422,
    UnusedOption: 422,
    NoDatabase: 503,
    NotFound: 404,
    ModelExists: 409,
    DataChanged: 409,
    DamagedModel: 409,
    NotReady: 409,
    TooFewImages: 422,
    TestWasTrained: 409,
    ImportedModel: 409,
    NotTrainedHere: 409,
    NoFeatures: 409,
    NothingToDraw: 409,
    BadName: 422,
    BadLine: 422,
    NotATest: 422,
    LookNotLogged: 503,
    RecordNotKept: 503,
    RecordChanged: 409,
    AlreadyScored: 409,
    AlreadyRegistered: 409,
    BadHypothesis: 422,
    ReadsTestInputs: 409,
    AlreadySeen: 409,
    SealWanted: 409,
    BadFilter: 422,
    BadReport: 422,
    BundleTooLarge: 422,
    NoPicture: 404,
    JobDone: 409,
    NotResumable: 409,
    QueueFull: 429,
    TooManyWait: 503,
    KeyReused: 422,
    DamagedStream: 422,
    BackboneNotHere: 409,
    BadImages: 422,
    UnreadableImage: 422,
    ClassesDisagree: 409,
    ExtractionChanged: 409,
    BadTitlePage: 422,
    BadText: 422,
    LoadRefused: 422,
    Busy: 409,
    DiskFull: 507,
    DiskFault: 503,
    AnnotationTaken: 409,
    NotAttached: 404,
    NothingLinked: 409,
    NothingLoaded: 503,
    OtherShape: 503,
    ModelError: 500,
    NoTrainRows: 409,
    TestRowInTraining: 500,
    InvalidParams: 422,
    WrongShape: 422,
    NotFiniteInput: 422,
    NoRoom: 507,
    BackboneError: 503,
    DamagedHead: 409,
    BadHeadFile: 422,
    HeadsDiffer: 409,
    LabelsMissing: 503,
}


def status_of(error: Exception) -> int:
    """HTTP status of a refusal, by its nearest ancestor in the table.

    Examples
    --------
    >>> status_of(NotFound("no such model"))
    404
    >>> status_of(KeyError("a fault of ours"))
    500
    """
    for ancestor in type(error).__mro__:
        if ancestor in STATUS:
            return STATUS[ancestor]
    return 500
