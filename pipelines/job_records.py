"""The manifests of jobs in KV: read, found, and changed by compare-and-set."""

from typing import Any, Self

from pipelines.broker import DELETED, Broker, Stored
from pipelines.values import decoded
from schemas.declared import is_token
from schemas.errors import NotFound, RigflowError, UsageError
from schemas.jobs import JobRef, JobState, Manifest
from schemas.results import Done


class JobCancelled(RigflowError):
    """The job was cancelled, or started again as another generation, while this process worked on it."""

    def __init__(self, job: JobRef) -> None:
        super().__init__(f"job {job.id} was cancelled", "publish it again to have it done")
        self.job = job


class OtherInput(UsageError):
    """The id belongs to a job with another input or another pipeline; that job is `known`."""

    def __init__(self, what: str, known: JobRef) -> None:
        frees = f"delete that job and its results, `rigflow jobs delete {known.id}`"
        super().__init__(f"job {known.id} is there already, {what}", f"choose another id, or {frees}")
        self.known = known


class CollectedElsewhere(RigflowError):
    """Another collector finished the job, and its results are deleted; `done` is its Done."""

    def __init__(self, done: Done) -> None:
        files = ", ".join(done.files[:5]) + (", ..." if len(done.files) > 5 else "")
        where = f"its results were collected before ({files or 'no files'}), and are not at the broker any more"
        super().__init__(f"job {done.job.id} is done: {where}", "publish it again to have it done again")
        self.done = done


class JobRecord:
    """One job's manifest, changed by compare-and-set: its publisher, its collector and `cancel` write it.

    A change sets only its own fields, so changes of other processes are kept. A job never returns to an earlier state.
    """

    def __init__(self, broker: Broker, manifest: Manifest, sequence: int = 0, stored_s: float = 0.0) -> None:
        self._broker = broker
        self._sequence = sequence
        self.stored = sequence > 0  # as this process knows it; a deleted manifest has a sequence, too
        self.stored_s = stored_s  # when what `read` found was stored, by the broker's clock
        self.manifest = manifest
        self.before: Manifest | None = None  # of an earlier job of this id, in whose place this one is
        self.note = ""  # why the job was begun anew, if a user can change that

    @classmethod
    async def read(cls, broker: Broker, job: JobRef) -> Self | None:
        """The manifest of a job; None when there is none, or it is too old."""
        stored = await _entry(broker, job.tenant, job.id)
        manifest = _manifest_of(stored)
        return None if manifest is None or stored is None else cls(broker, manifest, stored.sequence, stored.stored_s)

    @classmethod
    async def current(cls, broker: Broker, job: JobRef) -> Self | None:
        """`read`, for work on this generation of a job. Raises JobCancelled when it was cancelled or started again."""
        record = await cls.read(broker, job)
        if record is not None and not _is_current(record.manifest, job):
            raise JobCancelled(job)
        return record

    async def change(self, **fields: Any) -> None:
        """Set fields. Raises JobCancelled when the job was cancelled, or started again."""
        while True:
            changed = _merged(self.manifest, fields)
            if self.stored and changed == self.manifest:
                await self.refresh()
                return
            if await self.write(changed):
                return
            await self.refresh()

    async def write(self, manifest: Manifest) -> bool:
        """Replace the manifest; False when another process wrote it since it was read here."""
        manifest = manifest.model_copy(update={"updated_s": self._broker.now_s()})
        bucket, key = job_place(self._broker, manifest.job)
        sequence = await self._broker.replace(bucket, key, manifest.model_dump_json().encode(), self._sequence)
        if sequence is None:
            return False
        self.manifest, self._sequence, self.stored = manifest, sequence, True
        return True

    async def forget(self) -> bool:
        """Delete what this process wrote; False when another process wrote it, too."""
        if self.stored:
            if not await self._broker.delete_key(*job_place(self._broker, self.manifest.job), self._sequence):
                return False
            self.stored = False
        return True

    async def refresh(self) -> None:
        """Read it again. Raises JobCancelled when the job was cancelled, deleted, or started again.

        Raises OtherInput when another input or pipeline was published under its id at the same time.
        """
        job = self.manifest.job
        stored = await _entry(self._broker, job.tenant, job.id)
        manifest = _manifest_of(stored)
        if manifest is not None and not self.stored and self.manifest.name and _is_current(manifest, job):
            check_same(manifest, self.manifest)  # the record of another job stays: this process must not write to it
        self._sequence = 0 if stored is None else stored.sequence
        if self.stored and stored is not None and DELETED in stored.headers:
            raise JobCancelled(job)
        self.stored = manifest is not None
        if manifest is None:
            return
        if not _is_current(manifest, job):
            raise JobCancelled(job)
        if not manifest.name:  # a collector wrote it before the publisher, which has these fields
            known = self.manifest.model_dump(
                include={"name", "source", "hosted", "gathers", "submitter", "nbytes", "created_s"}
            )
            manifest = manifest.model_copy(update=known)
        self.manifest = manifest

    async def settle_as_cancelled(self) -> None:
        """Write that the job is cancelled, if it is not over. Raises NotFound when another process deleted it."""
        job = self.manifest.job
        while not self.manifest.state.ended:
            update = {"state": JobState.CANCELLED, "ended_s": self._broker.now_s()}
            if await self.write(self.manifest.model_copy(update=update)):
                return
            try:
                await self.refresh()
            except JobCancelled:  # by another process at the same time
                now = await self.read(self._broker, job)
                if now is None:
                    raise was_deleted(job) from None
                if now.manifest.job.generation != job.generation:
                    raise
                self.manifest, self._sequence = now.manifest, now._sequence


def check_same(known: Manifest, wanted: Manifest) -> None:
    """Raise OtherInput if a manifest has another input, pipeline or revision."""
    if (known.job.pipeline, known.job.revision) != (wanted.job.pipeline, wanted.job.revision):
        other = f"with other options or another version of {known.job.pipeline}"
        is_other = known.job.pipeline != wanted.job.pipeline
        raise OtherInput(f"of another pipeline ({known.job.pipeline})" if is_other else other, known.job)
    if known.source and wanted.source and known.source != wanted.source:
        raise OtherInput(f"of another input ({known.name})", known.job)


def was_deleted(job: JobRef) -> NotFound:
    """The error about a job that another process deleted."""
    return NotFound(f"job {job.id} was deleted", "submit its media again")


def _is_current(manifest: Manifest, job: JobRef) -> bool:
    return manifest.state is not JobState.CANCELLED and manifest.job.generation == job.generation


def _merged(manifest: Manifest, fields: dict[str, Any]) -> Manifest:
    """`fields` set, but for a state that would be a step back."""
    state = fields.get("state", manifest.state)
    back = manifest.state.ended and (not state.ended or state is JobState.CANCELLED)
    return manifest.model_copy(update=fields | ({"state": manifest.state} if back else {}))


async def find_manifest(broker: Broker, job: str, tenant: str = "") -> Manifest | None:
    """The manifest of a job by its id; None when there is none, or it is too old."""
    return _manifest_of(await _entry(broker, tenant or broker.settings.tenant, job))


async def all_manifests(broker: Broker, tenant: str = "") -> list[Manifest]:
    """All jobs of a tenant, or ours, that the broker knows, oldest first. What cannot be read is reported."""
    tenant = tenant or broker.settings.tenant
    found = await broker.items(broker.names.jobs_of(tenant), job_key(tenant, "*"))
    manifests = (decoded(Manifest, body, f"the manifest of job {key}") for key, body in found.items())
    return sorted((each for each in manifests if each is not None), key=lambda each: each.created_s)


async def entries_of_jobs(broker: Broker, pattern: str) -> dict[str, bytes]:
    """Entries of the buckets of jobs of all tenants, by their keys."""
    found = [await broker.items(bucket, pattern) for bucket in broker.names.all_jobs]
    return {key: body for of_bucket in found for key, body in of_bucket.items()}


async def _entry(broker: Broker, tenant: str, job: str) -> Stored | None:
    if not (is_token(tenant) and is_token(job)):  # a wildcard in it would find another job
        return None
    bucket = broker.names.jobs_of(tenant)
    return await broker.last(f"KV_{bucket}", f"$KV.{bucket}.{job_key(tenant, job)}")


def _manifest_of(stored: Stored | None) -> Manifest | None:
    if stored is None or DELETED in stored.headers:
        return None
    return decoded(Manifest, stored.body, f"the manifest {stored.subject}")


def job_key(tenant: str, job: str) -> str:
    """The key of a job's manifest in the bucket of jobs."""
    return f"{tenant}.{job}"


def job_place(broker: Broker, job: JobRef) -> tuple[str, str]:
    """The bucket of a job's manifest, and its key there."""
    return broker.names.jobs_of(job.tenant), job_key(job.tenant, job.id)
