//! Numbers that both sides must know. Each one bounds memory on the router: what is in flight is held there.

use std::time::Duration;

/// Port on which an agent listens unless told otherwise.
pub const DEFAULT_PORT: u16 = 4670;

/// Bytes of the first message of a `Run`, the [`JobSpec`](crate::v1::JobSpec): it holds arguments and environment, for which
/// Linux itself has room for 2 MiB (a quarter of the stack limit, execve(2)).
pub const MAX_SPEC_BYTES: usize = 2 * 1024 * 1024;

/// Bytes of every other message that a controller sends. An agent has room for 4 MiB of messages on their way, of all
/// controllers together.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// Bytes of the largest [`BlobChunk`](crate::v1::BlobChunk) that an agent takes: with what is around it, it is a message.
pub const MAX_BLOB_CHUNK_BYTES: usize = 60 * 1024;

/// Blobs against which a program can be offered as a delta.
pub const MAX_BASES: usize = 16;

/// Bytes in a [`BlobChunk`](crate::v1::BlobChunk) as this controller sends them: large enough that its framing costs
/// less than 0.1 %, small enough that the agent never holds more than this beside the file.
pub const BLOB_CHUNK_BYTES: usize = 32 * 1024;

/// Bytes in an [`Output`](crate::v1::Output) message: one HTTP/2 frame.
pub const OUTPUT_CHUNK_BYTES: usize = 16 * 1024;

/// Bytes of one output that may be on their way: a pipe's capacity (pipe(7)) four times over, so that a link with
/// 20 ms of delay still carries 12 MB/s.
pub const OUTPUT_WINDOW_BYTES: u32 = 256 * 1024;

/// Bytes of the largest output window that an agent grants.
pub const MAX_OUTPUT_WINDOW_BYTES: u32 = 1024 * 1024;

/// Bytes of the largest message of an agent: output comes 16 KiB at a time, a list of jobs takes some hundred bytes a job.
pub const MAX_REPLY_BYTES: usize = 256 * 1024;

/// Jobs in an agent's list. It has eight that run, and keeps eight that have ended.
pub const MAX_LISTED_JOBS: usize = 1024;

/// Bytes of the largest window for standard input that an agent may ask for: a controller keeps as much in memory.
pub const MAX_STDIN_WINDOW_BYTES: u32 = 1024 * 1024;

/// Bytes of standard input that the agent holds for a program that does not read: a pipe's capacity (pipe(7)).
pub const STDIN_WINDOW_BYTES: u32 = 64 * 1024;

/// Bytes in the name of a program, `TASK_COMM_LEN` four times over.
pub const MAX_NAME_BYTES: usize = 64;

/// Longest time between TERM and KILL.
pub const MAX_GRACE_MS: u64 = 60_000;

/// Longest time that a job goes on without its controller: a day.
pub const MAX_LINGER_MS: u64 = 86_400_000;

/// Bytes in the id of a job.
pub const MAX_JOB_ID_BYTES: usize = 32;

/// Output files that can be asked for: a command line of a person, or of `go test` with every profile, has fewer.
pub const MAX_OUTPUT_REQUESTS: usize = 64;

/// Bytes in the path by which output files are asked for: a quarter of what Linux takes (PATH_MAX).
pub const MAX_OUTPUT_PATH_BYTES: usize = 1024;

/// Directories one in the other from which output files are brought.
pub const MAX_OUTPUT_DEPTH: usize = 32;
/// Output files of a job that are found, and bytes in their paths. A corpus of a fuzzer or the coverage of many runs is
/// hundreds of files.
pub const MAX_OUTPUT_FILES: usize = 1024;
/// See [`MAX_OUTPUT_FILES`].
pub const MAX_OUTPUT_FILES_PATH_BYTES: usize = 64 * 1024;

/// Bytes of all output files of a job: what is in half the RAM of a router with 512 MiB, where its tmpfs ends. A file with
/// holes may say to be longer than all RAM.
pub const MAX_OUTPUT_FILES_BYTES: u64 = 256 * 1024 * 1024;

/// Trees of input files of a job: what a test finds, what it was given beside that, and as many again.
pub const MAX_INPUT_TREES: usize = 4;

/// Bytes of memory that a file of a tree takes beside its content: an inode and a name, on every kernel that was looked at.
pub const INPUT_ENTRY_BYTES: u64 = 1024;

/// What the memory of a file's content is a multiple of: a page.
pub const INPUT_PAGE_BYTES: u64 = 4096;

/// Bytes in [`JobSpec::workdir_placeholder`](crate::v1::JobSpec). A shorter one would make more of what it stands in than it was.
pub const MIN_MARK_BYTES: usize = 16;
/// See [`MIN_MARK_BYTES`].
pub const MAX_MARK_BYTES: usize = 64;

/// Arguments and variables of a program together: one that is empty takes 60 bytes of an agent all the same.
pub const MAX_ARGUMENTS: usize = 16_384;

/// How long a connection may be silent before either side asks the other, and how long the answer may take: a dead link is
/// noticed within 10 s on both sides, while a call is under way. A router whose CPU a program has to itself still answers
/// within seconds.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// See [`KEEPALIVE_INTERVAL`].
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How much longer an agent takes for either while no call is under way. Such a connection is asked after 20 s, and if it is
/// dead, its place is free after 40.
pub const KEEPALIVE_LEISURE: Duration = Duration::from_secs(15);
