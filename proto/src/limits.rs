//! Limits and timeouts that both sides apply. Most of them bound memory on the router, which holds all data in flight.

use std::time::Duration;

/// Port on which an agent listens by default.
pub const DEFAULT_PORT: u16 = 4670;

/// Bytes of the first message of a `Run`, the [`JobSpec`](crate::v1::JobSpec). It holds the arguments and the
/// environment, which Linux itself limits to 2 MiB (a quarter of the stack limit, execve(2)).
pub const MAX_SPEC_BYTES: usize = 2 * 1024 * 1024;

/// Bytes of every other message that a controller sends. An agent buffers at most 4 MiB of incomplete messages, of all
/// controllers together.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// Bytes of data in the largest [`BlobChunk`](crate::v1::BlobChunk) that an agent accepts: [`MAX_MESSAGE_BYTES`] less
/// the message's other fields.
pub const MAX_BLOB_CHUNK_BYTES: usize = 60 * 1024;

/// Blobs that a controller can offer as bases of a delta.
pub const MAX_BASES: usize = 16;

/// Bytes in a [`BlobChunk`](crate::v1::BlobChunk) that this controller sends: so many that the framing adds less than
/// 0.1 %, and so few that the agent never holds more than this in addition to the file.
pub const BLOB_CHUNK_BYTES: usize = 32 * 1024;

/// Bytes in an [`Output`](crate::v1::Output) message: one HTTP/2 frame.
pub const OUTPUT_CHUNK_BYTES: usize = 16 * 1024;

/// Bytes of one output that may be in flight: four times the capacity of a pipe (pipe(7)), so that a link with a delay
/// of 20 ms still carries 12 MB/s.
pub const OUTPUT_WINDOW_BYTES: u32 = 256 * 1024;

/// Bytes of the largest output window that an agent grants.
pub const MAX_OUTPUT_WINDOW_BYTES: u32 = 1024 * 1024;

/// Bytes of each output that an agent keeps of a detached job unless asked otherwise.
pub const DEFAULT_LOG_BYTES: u32 = 256 * 1024;

/// Bytes of the largest log of an output that an agent keeps.
pub const MAX_LOG_BYTES: u32 = 1024 * 1024;

/// Bytes of an output that a controller accepts from an agent without an acknowledgement when it attaches to a job: a log
/// or a window, a quarter of it more, and what was left in the largest pipe (/proc/sys/fs/pipe-max-size, pipe(7)).
pub const MAX_KEPT_OUTPUT_BYTES: u32 = 3 * 1024 * 1024;

/// Bytes of the largest message of an agent: an output message has 16 KiB, a list of jobs some hundred bytes for each
/// job.
pub const MAX_REPLY_BYTES: usize = 256 * 1024;

/// Jobs that a controller accepts in an agent's list. An agent runs at most eight, and keeps eight that have ended.
pub const MAX_LISTED_JOBS: usize = 1024;

/// Bytes of the largest window for standard input that an agent may request: a controller buffers as much in memory.
pub const MAX_STDIN_WINDOW_BYTES: u32 = 1024 * 1024;

/// Bytes of standard input that the agent buffers for a program that does not read: the capacity of a pipe (pipe(7)).
pub const STDIN_WINDOW_BYTES: u32 = 64 * 1024;

/// Bytes in the name of a program: four times `TASK_COMM_LEN`.
pub const MAX_NAME_BYTES: usize = 64;

/// Longest time between TERM and KILL.
pub const MAX_GRACE_MS: u64 = 60_000;

/// Longest time for which a job runs on without its controller: a day.
pub const MAX_LINGER_MS: u64 = 86_400_000;

/// Bytes in the id of a job.
pub const MAX_JOB_ID_BYTES: usize = 32;

/// Paths of output files that a job may request: a command line that somebody typed, or that of `go test` with every
/// profile, has fewer.
pub const MAX_OUTPUT_REQUESTS: usize = 64;

/// Bytes in the path of a requested output file: a quarter of what Linux accepts (PATH_MAX).
pub const MAX_OUTPUT_PATH_BYTES: usize = 1024;

/// Nested directories from which an agent sends output files.
pub const MAX_OUTPUT_DEPTH: usize = 32;

/// Output files that an agent sends of one job. A fuzzer's corpus, or the coverage of many runs, has hundreds of files.
pub const MAX_OUTPUT_FILES: usize = 1024;
/// Bytes in the paths of a job's output files, all together.
pub const MAX_OUTPUT_FILES_PATH_BYTES: usize = 64 * 1024;

/// Bytes of all output files of a job: half the RAM of a router with 512 MiB, which is the default limit of a tmpfs. A
/// sparse file may claim to be longer than all RAM.
pub const MAX_OUTPUT_FILES_BYTES: u64 = 256 * 1024 * 1024;

/// Archives of input files of a job: one for the files of a test's package, one for those that the user adds, and two
/// in reserve.
pub const MAX_INPUT_TREES: usize = 4;

/// Bytes of memory that an input file takes in addition to its content, for an inode and a name: an upper bound for
/// every kernel that was measured.
pub const INPUT_ENTRY_BYTES: u64 = 1024;

/// Bytes of a page: the memory of a file's content is a multiple of it.
pub const INPUT_PAGE_BYTES: u64 = 4096;

/// Fewest bytes in [`JobSpec::workdir_placeholder`](crate::v1::JobSpec). A shorter one, repeated in an argument, would
/// let a small message expand into long arguments.
pub const MIN_MARK_BYTES: usize = 16;
/// Most bytes in [`JobSpec::workdir_placeholder`](crate::v1::JobSpec).
pub const MAX_MARK_BYTES: usize = 64;

/// Arguments and variables of a program together: even an empty one takes 60 bytes of an agent's memory.
pub const MAX_ARGUMENTS: usize = 16_384;

/// How long a connection may be idle before either side pings the other. With [`KEEPALIVE_TIMEOUT`], both sides detect
/// a dead link within 10 s while a call is in progress. Even a router whose CPU is busy with a program answers within
/// seconds.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long the answer to a ping may take before the connection counts as dead.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How much longer an agent waits for either while no call is in progress. It pings such a connection after 20 s, and
/// if the connection is dead, closes it after 40 s.
pub const KEEPALIVE_LEISURE: Duration = Duration::from_secs(15);
