"""Settings of what keeps and works on the data: storage, retention, queries, jobs, topics (see `server.config`)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

MIB = 1024 * 1024
GIB = 1024 * MIB


class RemoteTimeoutsSection(msgspec.Struct, frozen=True):
    """How long object stores may take to answer."""

    connect_timeout_secs: Annotated[float, Meta(gt=0, le=3600, description="Time to connect to one")] = 10.0
    request_timeout_secs: Annotated[float, Meta(gt=0, le=3600, description="Time for one answer")] = 60.0


class StorageSection(msgspec.Struct, frozen=True):
    """The data folder and the storage engine."""

    data_path: Annotated[str, Meta(min_length=1, description="Folder of the database; created on first start")] = (
        "./data"
    )
    max_bytes: Annotated[
        int, Meta(ge=0, description="Largest size of the database file; 0 lets it grow while the disk has room")
    ] = 0
    queue_works: Annotated[
        int, Meta(ge=1, description="Writes that may wait for the writer before new ones are refused with 503")
    ] = 16_384
    snapshot_lease_seconds: Annotated[
        float, Meta(gt=0, description="How long one reader may keep old pages before it is ended")
    ] = 300.0
    cold_cache_bytes: Annotated[
        int, Meta(ge=0, description="How much decoded rows of cold tables may take in the folder cache; 0 keeps none")
    ] = 4 * GIB
    cold_grace_seconds: Annotated[
        float, Meta(ge=0, description="How long Parquet files that a compaction replaced are kept for other engines")
    ] = 3_600.0
    remote_timeouts: RemoteTimeoutsSection = msgspec.field(default_factory=RemoteTimeoutsSection)


class RetentionSection(msgspec.Struct, frozen=True):
    """How much of the commit log is kept for readers that lag or resume, and how often that is looked after."""

    commit_log_seconds: Annotated[int, Meta(ge=0, description="Commits younger than this are kept")] = 86_400
    commit_log_bytes: Annotated[
        int, Meta(ge=0, description="The oldest commits go when the log is larger than this; 0 for no bound")
    ] = 4 * GIB
    interval_seconds: Annotated[
        float, Meta(gt=0, le=3600, description="Time between rounds that trim the log and topics and give space back")
    ] = 10.0
    enable_dba_stats: Annotated[bool, Meta(description="Whether figures of the server are kept in dba.stats")] = True
    dba_stats_interval_seconds: Annotated[float, Meta(ge=1, description="Time between two samples in dba.stats")] = 30.0
    dba_stats_retention_days: Annotated[int, Meta(ge=1, description="How long samples stay in dba.stats")] = 7


class StreamSection(msgspec.Struct, frozen=True):
    """Rows of STREAM tables whose time is over."""

    eviction_interval_seconds: Annotated[
        float,
        Meta(
            gt=0,
            le=86_400,
            description="Least time between two rounds that end expired rows in the log; readers never see them anyway",
        ),
    ] = 1.0


class FilesSection(msgspec.Struct, frozen=True):
    """Files in columns: what may be uploaded, and where it is stored."""

    storage: Annotated[
        str,
        Meta(description="Where files lie: a URI such as s3://bucket/path; empty: the folder files of the data folder"),
    ] = ""
    max_size_bytes: Annotated[int, Meta(ge=1, description="Largest file")] = 25 * MIB
    max_files_per_request: Annotated[int, Meta(ge=0, description="Most files of a request; 0 refuses all")] = 20
    max_request_bytes: Annotated[int, Meta(ge=1, description="Most bytes of all files of a request together")] = (
        100 * MIB
    )
    max_files_per_folder: Annotated[int, Meta(ge=1, description="Files of a table that share a folder")] = 5_000
    allowed_mime_types: Annotated[
        tuple[str, ...], Meta(description="Types that may be uploaded, such as application/pdf or image/*; empty: any")
    ] = ()
    min_upload_bytes_per_second: Annotated[
        int, Meta(ge=0, description="Slowest upload, on average from performance.request_timeout on; 0: no limit")
    ] = 1024

    def __post_init__(self) -> None:
        """Types are compared in small letters, whole or up to the slash."""
        for pattern in self.allowed_mime_types:
            kind, slash, subtype = pattern.partition("/")
            if not (kind and slash and subtype) or pattern != pattern.lower() or "*" in kind or "*" in subtype[:-1]:
                raise ValueError(f"key 'allowed_mime_types': '{pattern}' is no type such as image/png or image/*")


class LiveSection(msgspec.Struct, frozen=True):
    """Live queries: their snapshots, and the threads that serve them."""

    batch_size: Annotated[int, Meta(ge=1, description="Rows of a snapshot's batch when the client names no size")] = (
        1_000
    )
    max_batch_size: Annotated[int, Meta(ge=1, description="Largest batch that a client may ask for")] = 10_000
    snapshot_memory_bytes: Annotated[
        int, Meta(ge=0, description="How much of a snapshot waits in memory for its client; the rest waits in a file")
    ] = 4 * MIB
    snapshot_idle_seconds: Annotated[
        float, Meta(gt=0, description="How long a client may take to ask for the next batch of its snapshot")
    ] = 120.0
    workers: Annotated[
        int, Meta(ge=1, le=64, description="Threads that read the log for clients that lag, and evaluate large commits")
    ] = 4

    def __post_init__(self) -> None:
        """The usual batch is one that may be asked for."""
        if self.batch_size > self.max_batch_size:
            raise ValueError("key 'batch_size' is larger than 'max_batch_size'")


class TopicsSection(msgspec.Struct, frozen=True):
    """Topics and their consumers."""

    visibility_timeout_secs: Annotated[
        float, Meta(gt=0, description="How long messages are a consumer's until they are delivered again")
    ] = 60.0
    max_visibility_timeout_secs: Annotated[
        float, Meta(gt=0, description="The longest such time that a consumer may ask for")
    ] = 43_200.0
    max_deliveries: Annotated[
        int,
        Meta(ge=0, description="Deliveries without an acknowledgement that make a message a dead letter; 0: never"),
    ] = 0
    max_poll_seconds: Annotated[
        float, Meta(ge=0, description="How long a consumer may wait for messages in one request")
    ] = 60.0
    max_batch_messages: Annotated[int, Meta(ge=1, description="Most messages of one answer, or of one produce")] = (
        10_000
    )
    max_batch_bytes: Annotated[int, Meta(ge=1024, description="Bytes of the payloads of one answer, about")] = 8 * MIB
    max_message_bytes: Annotated[int, Meta(ge=1, description="Largest payload that may be produced")] = MIB
    max_key_bytes: Annotated[int, Meta(ge=1, description="Longest key that may be produced")] = 4096
    max_waiting: Annotated[int, Meta(ge=1, description="Consumers that may wait at a time")] = 50_000
    default_retention_seconds: Annotated[
        int, Meta(ge=0, description="How long a new topic keeps messages, if it does not say; 0: no bound")
    ] = 604_800
    default_retention_bytes: Annotated[
        int, Meta(ge=0, description="How many bytes of messages a new topic keeps, if it does not say; 0: no bound")
    ] = GIB


class JobsSection(msgspec.Struct, frozen=True):
    """Work in the background: flushing, compaction, backups, exports, clean-up."""

    max_concurrent: Annotated[int, Meta(ge=1, le=100, description="Jobs that run at once; others wait")] = 10
    max_waiting: Annotated[int, Meta(ge=1, description="Jobs that may wait before new ones are refused with 503")] = (
        10_000
    )
    max_retries: Annotated[int, Meta(ge=0, le=100, description="How often a job that failed is run again")] = 3
    retry_backoff_ms: Annotated[
        int, Meta(ge=1, le=3_600_000, description="Milliseconds before that, doubled each time")
    ] = 100
    retention_seconds: Annotated[int, Meta(ge=0, description="How long finished jobs stay in system.jobs")] = 604_800
    max_finished: Annotated[int, Meta(ge=0, description="How many finished jobs stay in system.jobs at most")] = 10_000
    cleanup_interval_seconds: Annotated[
        float, Meta(gt=0, le=86_400, description="Time between looks for jobs that are to be removed")
    ] = 600.0
    stop_seconds: Annotated[
        float, Meta(ge=0, description="How long running jobs may take to stop; they go on after the next start")
    ] = 10.0


class ExportsSection(msgspec.Struct, frozen=True):
    """What users export of their own data."""

    retention_days: Annotated[float, Meta(gt=0, le=3650, description="How long an export can be downloaded")] = 7.0
    max_bytes: Annotated[int, Meta(ge=1, description="Largest export")] = 16 * GIB


class FlushSection(msgspec.Struct, frozen=True):
    """When rows of tables with a flush policy move to cold files."""

    check_interval_seconds: Annotated[
        float, Meta(gt=0, le=86_400, description="Time between looks for tables whose policy asks for a flush")
    ] = 60.0


class ExecutionSection(msgspec.Struct, frozen=True):
    """Bounds of a statement."""

    handler_timeout_seconds: Annotated[float, Meta(gt=0, description="Longest time of all statements of a request")] = (
        30.0
    )
    stream_timeout_seconds: Annotated[
        float, Meta(gt=0, description="Longest time of a result in a streaming format")
    ] = 300.0
    max_parameters: Annotated[int, Meta(ge=0, description="Most parameters ($1, $2, …) of a request")] = 32_767
    max_parameter_size_bytes: Annotated[int, Meta(ge=1, description="Largest single parameter")] = 16 * MIB
    sql_plan_cache_max_entries: Annotated[int, Meta(ge=1, description="Statements whose plan is remembered")] = 2000
    max_waiting: Annotated[
        int, Meta(ge=1, description="Statements that may wait for a thread before new ones are refused with 503")
    ] = 256
    transaction_timeout_seconds: Annotated[float, Meta(gt=0, description="Longest time of BEGIN … COMMIT")] = 300.0
    max_transaction_buffer_bytes: Annotated[
        int, Meta(ge=MIB, description="Largest amount of changes that one transaction holds before it commits")
    ] = 104_857_600


class DuckdbSection(msgspec.Struct, frozen=True):
    """The engine behind queries that are more than a look-up or a simple filter."""

    memory_limit_bytes: Annotated[
        int, Meta(ge=16 * MIB, description="Memory of all queries together; what is more goes to files")
    ] = GIB
    threads: Annotated[int, Meta(ge=0, description="Threads of a query; 0: as many as the machine has cores")] = 0
    max_temp_bytes: Annotated[
        int, Meta(ge=0, description="Largest size of those files; queries that need more fail")
    ] = 4 * GIB
    connections: Annotated[int, Meta(ge=1, le=64, description="Queries that run at a time; others wait")] = 2
    process_memory_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Private memory that the operating system grants the whole process, so that a query's huge "
            "intermediate values fail instead of the machine; 0: no limit",
        ),
    ] = 4 * GIB
    wait_seconds: Annotated[float, Meta(gt=0, description="How long a query waits before it is refused with 503")] = (
        10.0
    )


class VectorsSection(msgspec.Struct, frozen=True):
    """Vector indexes on EMBEDDING columns."""

    memory_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Memory of all indexes: the least recently used are unloaded, larger ones searched exactly",
        ),
    ] = GIB
    min_rows: Annotated[
        int, Meta(ge=1, description="Rows of a table, or of one user in a USER table, below which search is exact")
    ] = 5_000
