"""Names of everything on the broker: subjects, streams, consumers, buckets. No other module builds such names."""

from dataclasses import dataclass

from schemas.jobs import JobRef, Priority

HEADER_JOB = "Rigflow-Job"  # optional on media: the publisher's own job id
HEADER_REVISION = "Rigflow-Revision"  # optional on media: the revision of the pipeline, if not the newest
HEADER_TYPE = "Rigflow-Type"  # on results: part | fragment | failure | done | file; delta on deltas
HEADER_PART = "Rigflow-Part"  # on parts: the place in the job, in the format of PartHeader
HEADER_FAILED = "Rigflow-Failed"  # on parts: how many of its items have no result; none says 0
HEADER_UNSEEN = "Rigflow-Unseen"  # on parts: how many of its frames no window uses; none says 0
HEADER_NOTES = "Rigflow-Notes"  # on parts: how many notes it has; none says 0
HEADER_COMPUTED = "Rigflow-Computed"  # on parts: seconds that devices computed for it
HEADER_NAME = "Rigflow-Name"  # optional on media: the file's name, and on a file: its name
HEADER_COPY = "Rigflow-Copy"  # on work that another worker has had for too long: a copy of its message
HEADER_AGAIN = "Rigflow-Again"  # on work that is done again because of a card, and on what is made of it: why
HEADER_BLOB = "Rigflow-Blob"  # the body is elsewhere: name of an object in the blob store
HEADER_FAILURE = "Rigflow-Failure"  # on dead letters: the Failure as json
HEADER_SUBJECT = "Rigflow-Subject"  # on dead letters: the queue that the input came from, and returns to at a retry
HEADER_CONTENT_TYPE = "Content-Type"
HEADER_ID = "Nats-Msg-Id"
HEADER_TRACE = "traceparent"  # optional on media, and on what is made of it: its place in a trace, by W3C
_NAMED = 43  # characters of a pipeline's name in the id of a job: the longest sequence has 20 digits

COLLECT = "collect"  # the stage that finishes jobs for publishers that have only NATS
SPLIT = "split"  # the stage that takes raw media
_MEDIA_TOKENS = 4  # prefix, media, tenant, pipeline; a prefix is one token


def made_id(pipeline: str, sequence: int) -> str:
    """The id of media without one: its publisher learns the sequence from the broker's acknowledgement.

    Each pipeline has a stream of its own, and jobs of all pipelines share their ids.
    """
    return f"{pipeline[:_NAMED]}-{sequence}"


def given_by(subject: str) -> tuple[str, str, Priority]:
    """Tenant, pipeline and priority of raw media that were published on a subject; see `Names.media`."""
    tokens = subject.split(".")
    bulk = len(tokens) > _MEDIA_TOKENS and tokens[-1] == Priority.BULK.value
    tenant, pipeline = tokens[-3:-1] if bulk else tokens[-2:]
    return tenant, pipeline, Priority.BULK if bulk else Priority.INTERACTIVE


@dataclass(frozen=True, slots=True)
class Names:
    """All names under one `prefix`, so that several rigflows can share a cluster.

    `tenants` are those that the operator has listed: each has streams of its own for what it sends and gets, and
    consumers of its own at the queues. All others share one of each. `own_jobs`: each has a bucket of jobs, too.
    """

    prefix: str = "rigflow"
    tenants: frozenset[str] = frozenset()
    own_jobs: bool = True

    def lacks(self, tenant: str) -> bool:
        """Whether a queue is that of a tenant which is not listed any more; empty: the queue that all others share."""
        return bool(tenant) and tenant not in self.tenants

    @property
    def _upper(self) -> str:
        return self.prefix.upper()

    def media(self, tenant: str, pipeline: str, priority: Priority = Priority.INTERACTIVE) -> str:
        """The subject on which programs publish raw media: that of interactive jobs, or with `.bulk` behind it.

        Each priority has a subject, because a consumer cannot choose among messages by a header.
        """
        interactive = f"{self.prefix}.media.{tenant}.{pipeline}"
        return interactive if priority is Priority.INTERACTIVE else f"{interactive}.{priority.value}"

    def work(self, pipeline: str, stage: str, priority: Priority, tenant: str = "") -> str:
        """The queue in front of `stage`; that of a listed tenant ends with its name."""
        shared = f"{self.prefix}.work.{pipeline}.{stage}.{priority.value}"
        return f"{shared}.{tenant}" if tenant in self.tenants else shared

    def consumer(self, priority: Priority, tenant: str = "") -> str:
        """The consumer of one priority of a queue: that of a listed tenant, or the shared one."""
        return f"{priority.value}-{tenant}" if tenant in self.tenants else priority.value

    def results(self, job: JobRef) -> str:
        """The subject of a job's results and its Done."""
        return f"{self.prefix}.results.{job.tenant}.{job.pipeline}.{job.id}"

    def deltas(self, job: JobRef) -> str:
        """The subject of new text in a job's answers. No stream stores it: only those subscribed at the time get it."""
        return f"{self.prefix}.deltas.{job.tenant}.{job.pipeline}.{job.id}"

    def usage(self, tenant: str, submitter: str, pipeline: str, day: str, job: str) -> str:
        """The subject of what one job used; `*` for any. It ends with the job, so that each job counts once."""
        return f"{self.prefix}.usage.{tenant}.{submitter}.{pipeline}.{day}.{job}"

    def audit(self, role: str, action: str, tenant: str = "") -> str:
        """The subject of entries of the audit log, by the role of who made the change; `*` for any.

        What a listed tenant asked for is on a subject of its own: the newest of each subject are kept.
        """
        shared = f"{self.prefix}.audit.{role}.{action}"
        return f"{shared}.{tenant}" if tenant in self.tenants and self.own_jobs else shared

    def cancel(self, tenant: str, pipeline: str, job: str) -> str:
        """The subject of requests to cancel a job; `*` for any."""
        return f"{self.prefix}.cancel.{tenant}.{pipeline}.{job}"

    def dead(self, pipeline: str, stage: str, tenant: str = "") -> str:
        """The subject of failures with their input; that of a listed tenant ends with its name."""
        shared = f"{self.prefix}.dead.{pipeline}.{stage}"
        return f"{shared}.{tenant}" if tenant in self.tenants else shared

    def _own(self, name: str, tenant: str) -> str:
        return f"{name}_{tenant}" if tenant in self.tenants else name

    def listed_tenant(self, subject: str) -> str:
        """The listed tenant that a message of this subject belongs to; empty: one of the others."""
        match subject.split(".")[1:]:
            case ["results" | "media", tenant, *_] | ["work", _, _, _, tenant] | ["dead", _, _, tenant]:
                return tenant if tenant in self.tenants else ""
        return ""

    @property
    def results_stream(self) -> str:
        """The stream of all results, but for those of listed tenants."""
        return self.results_of("")

    def results_of(self, tenant: str) -> str:
        """The stream of the results of a tenant."""
        return self._own(f"{self._upper}_RESULTS", tenant)

    @property
    def dead_stream(self) -> str:
        """The stream of all dead letters, but for those of listed tenants."""
        return self.dead_of("")

    def dead_of(self, tenant: str) -> str:
        """The stream of the dead letters of a tenant."""
        return self._own(f"{self._upper}_DEAD", tenant)

    def results_for(self, subject: str) -> str:
        """The stream of the results on a subject."""
        return self.results_of(self.listed_tenant(subject))

    def dead_for(self, subject: str) -> str:
        """The stream of the dead letters on a subject."""
        return self.dead_of(self.listed_tenant(subject))

    @property
    def cancel_stream(self) -> str:
        """The queue of requests to cancel jobs, but for those of listed tenants."""
        return self.cancel_of("")

    def cancel_of(self, tenant: str) -> str:
        """The queue of a tenant's requests to cancel jobs."""
        return self._own(f"{self._upper}_CANCEL", tenant)

    @property
    def usage_stream(self) -> str:
        """The stream of what jobs used."""
        return f"{self._upper}_USAGE"

    @property
    def audit_stream(self) -> str:
        """The stream of who changed what."""
        return f"{self._upper}_AUDIT"

    def media_stream(self, pipeline: str, tenant: str = "") -> str:
        """Work queue of raw media: that of a listed tenant, or the one of all others."""
        shared = f"{self._upper}_MEDIA_{pipeline}"
        return f"{shared}@{tenant}" if tenant in self.tenants else shared  # no other name has an @

    def work_stream(self, pipeline: str, stage: str) -> str:
        """The stream of one queue."""
        return f"{self._upper}_WORK_{pipeline}_{stage}"

    @property
    def jobs(self) -> str:
        """KV bucket of jobs, but for those of listed tenants."""
        return self.jobs_of("")

    def jobs_of(self, tenant: str) -> str:
        """KV bucket of the jobs of a tenant: `<tenant>.<job>` -> Manifest, `cancelled.<tenant>.<job>` -> JobRef, and
        `upload.<tenant>.<upload>` -> what a resumable upload is for.

        The JobRef has the last generation that was cancelled.
        """
        shared = f"{self.prefix}_jobs"
        return self._own(shared, tenant) if self.own_jobs else shared

    @property
    def all_jobs(self) -> list[str]:
        """The KV buckets of jobs of all tenants."""
        return list(dict.fromkeys(map(self.jobs_of, ("", *sorted(self.tenants)))))

    @property
    def rigs(self) -> str:
        """KV bucket of the status of workers and rigs that run."""
        return f"{self.prefix}_rigs"

    @property
    def last_seen(self) -> str:
        """KV bucket of rigs that run, or ran: `rig.<name>` -> its last RigStatus."""
        return f"{self.prefix}_last_seen"

    @property
    def attempts(self) -> str:
        """KV bucket of attempts that may fail.

        `begun.<life>` -> what a worker process has begun, which stays there when it is killed;
        `failed.<stream>.<sequence>.<delivery>` -> Attempt that ended with an error.
        """
        return f"{self.prefix}_attempts"

    @property
    def pipelines(self) -> str:
        """KV bucket of pipelines: `name.<name>` -> revision, `revision.<revision>` -> PipelineSpec as json."""
        return f"{self.prefix}_pipelines"

    @property
    def keys(self) -> str:
        """KV bucket of API keys: `key.<id>` -> ApiKey."""
        return f"{self.prefix}_keys"

    @property
    def join_tokens(self) -> str:
        """KV bucket of join tokens: `<id>` -> JoinToken. The role join may write there, so nothing else is in it."""
        return f"{self.prefix}_join_tokens"

    @property
    def profiles(self) -> str:
        """KV bucket of profiles: `<device id>` -> DeviceProfile, `model.<device id>.<model>` -> ModelProfile,
        `choice.<model and kind of device>` -> ModelChoice, `card.<card>` -> CardRecord and `canary.<card>.<group>` ->
        CanaryRecord, as json.
        """
        return f"{self.prefix}_profiles"

    @property
    def tenants_bucket(self) -> str:
        """KV bucket of tenants: `listed` -> the tenants that the operator has listed."""
        return f"{self.prefix}_tenants"

    @property
    def blobs(self) -> str:
        """Object store of claim checks, but for those of listed tenants."""
        return self.blobs_of("")

    def blobs_of(self, tenant: str) -> str:
        """Object store of a tenant's claim checks."""
        return self._own(f"{self.prefix}_blobs", tenant)

    def uploads_of(self, tenant: str) -> str:
        """Object store of a tenant's media that are larger than a message.

        For a listed tenant it is another one than that of claim checks: its programs may write there, and what a worker
        takes for a message of another worker may come from no program.
        """
        return f"{self.prefix}_uploads_{tenant}" if tenant in self.tenants else self.blobs_of(tenant)

    def blobs_for(self, subject: str) -> str:
        """Object store of the claim checks of messages on a subject."""
        tenant = self.listed_tenant(subject)
        is_media = subject.startswith(f"{self.prefix}.media.")
        return self.uploads_of(tenant) if is_media else self.blobs_of(tenant)

    @property
    def models(self) -> str:
        """Object store of models: `<sha256>` -> the ONNX file, its model card in the metadata."""
        return f"{self.prefix}_models"

    @property
    def engines(self) -> str:
        """Object store of engines: `<key>` -> the plan, its sidecar in the metadata."""
        return f"{self.prefix}_engines"
