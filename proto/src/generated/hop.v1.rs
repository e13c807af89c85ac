#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct GetInfoRequest {}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct GetInfoResponse {
    /// Version of the agent, to show to the user. A controller decides by `capabilities` alone.
    #[prost(string, tag = "1")]
    pub agent_version: ::prost::alloc::string::String,
    /// Named features of this agent; docs/protocol.md lists them. A controller ignores names that it does not know.
    #[prost(string, repeated, tag = "2")]
    pub capabilities: ::prost::alloc::vec::Vec<::prost::alloc::string::String>,
    /// The kind of executable that runs on this router.
    #[prost(message, optional, tag = "3")]
    pub target: ::core::option::Option<Target>,
    /// Four facts to show to the user; each is empty if the router does not provide it.
    #[prost(string, tag = "4")]
    pub hostname: ::prost::alloc::string::String,
    #[prost(string, tag = "5")]
    pub firmware: ::prost::alloc::string::String,
    #[prost(string, tag = "6")]
    pub kernel: ::prost::alloc::string::String,
    #[prost(string, tag = "7")]
    pub cpu: ::prost::alloc::string::String,
    /// Milliseconds since the router booted.
    #[prost(uint64, tag = "8")]
    pub uptime_ms: u64,
    /// Changes with every boot of the router (/proc/sys/kernel/random/boot_id).
    #[prost(string, tag = "9")]
    pub boot_id: ::prost::alloc::string::String,
    #[prost(message, optional, tag = "10")]
    pub memory: ::core::option::Option<Memory>,
    #[prost(message, optional, tag = "11")]
    pub store: ::core::option::Option<Store>,
    /// Number of jobs that hold a slot now, and the largest number that may.
    #[prost(uint32, tag = "13")]
    pub jobs: u32,
    #[prost(uint32, tag = "14")]
    pub max_jobs: u32,
    /// Which processes the agent kills with a job.
    #[prost(enumeration = "Containment", tag = "15")]
    pub containment: i32,
    /// Changes with every start of the agent within one boot of the router.
    #[prost(uint64, tag = "16")]
    pub agent_instance_id: u64,
    /// Address or interface on which the agent listens, to show to the user.
    #[prost(string, tag = "24")]
    pub listens: ::prost::alloc::string::String,
    /// The router's clock: seconds since 1970. 0 from an agent that does not tell.
    #[prost(uint64, tag = "30")]
    pub clock_s: u64,
    /// /etc/resolv.conf names no server (resolv.conf(5)), so programs look for one on the router itself.
    #[prost(bool, tag = "31")]
    pub lacks_resolver: bool,
}
/// The kind of an executable, as its ELF header names it (elf(5)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Target {
    /// EI_CLASS: 1 is 32 bits, 2 is 64 bits.
    #[prost(uint32, tag = "1")]
    pub elf_class: u32,
    /// EI_DATA: 1 is little endian, 2 is big endian.
    #[prost(uint32, tag = "2")]
    pub elf_data: u32,
    /// e_machine: 8 is MIPS.
    #[prost(uint32, tag = "3")]
    pub elf_machine: u32,
}
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Memory {
    /// Bytes of RAM that the kernel manages (MemTotal).
    #[prost(uint64, tag = "1")]
    pub total: u64,
    /// Bytes that a new program can use without harm to running ones: RAM down to the kernel's lowest watermark
    /// (vm.min_free_kbytes), or the rest of the kernel's commit limit, whichever is less.
    #[prost(uint64, tag = "2")]
    pub available: u64,
    /// Bytes that the agent never gives to a program.
    #[prost(uint64, tag = "3")]
    pub reserve: u64,
    /// `available` is the rest of the commit limit (vm.overcommit_memory is 2: CommitLimit - Committed_AS, less what Go
    /// maps at a time), and more RAM than that is free.
    #[prost(bool, tag = "4")]
    pub bound_by_promises: bool,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Store {
    /// Directory in which the agent stores programs, and from which it runs them.
    #[prost(string, tag = "1")]
    pub directory: ::prost::alloc::string::String,
    /// Bytes that the next program may take, by the file system's free space and by the agent's quota.
    #[prost(uint64, tag = "2")]
    pub free: u64,
    /// False if the file system is mounted noexec: no program can run.
    #[prost(bool, tag = "3")]
    pub executable: bool,
    /// Bytes of blobs that no job uses. They count as free, because the agent evicts them when it needs the space.
    #[prost(uint64, tag = "4")]
    pub reclaimable: u64,
    /// Absent if the file system does not limit the number of files. Capability "inodes".
    #[prost(message, optional, tag = "5")]
    pub inodes: ::core::option::Option<Inodes>,
}
/// Inodes of the store's file system.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Inodes {
    #[prost(uint64, tag = "1")]
    pub total: u64,
    #[prost(uint64, tag = "2")]
    pub available: u64,
    /// Number of inodes that the agent never gives to a new job.
    #[prost(uint64, tag = "3")]
    pub reserve: u64,
}
/// From the controller. The first message is `spec` or `attach`, and no later one is either of them. Half-closing the
/// stream ends standard input, as a `Stdin` with `end` does; the agent goes on sending.
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct RunRequest {
    #[prost(oneof = "run_request::Message", tags = "1, 2, 3, 4, 5, 7, 8, 10, 6, 11, 9")]
    pub message: ::core::option::Option<run_request::Message>,
}
/// Nested message and enum types in `RunRequest`.
pub mod run_request {
    #[derive(Clone, PartialEq, ::prost::Oneof)]
    pub enum Message {
        #[prost(message, tag = "1")]
        Spec(super::JobSpec),
        #[prost(message, tag = "2")]
        Blob(super::BlobChunk),
        #[prost(message, tag = "3")]
        Stdin(super::Stdin),
        #[prost(message, tag = "4")]
        Signal(super::Signal),
        #[prost(message, tag = "5")]
        OutputAck(super::OutputAck),
        #[prost(message, tag = "7")]
        Attach(super::Attach),
        #[prost(message, tag = "8")]
        Discard(super::Discard),
        #[prost(message, tag = "10")]
        Detach(super::Detach),
        /// New size of the terminal's window.
        #[prost(message, tag = "6")]
        WindowSize(super::WindowSize),
        /// The controller has stored everything before this position. The agent sends at most `JobSpec.output_window` bytes
        /// beyond it, and keeps the output files until the position is at the end of the last one.
        #[prost(message, tag = "11")]
        FileAck(super::FilePosition),
        /// A job with `JobSpec.wait_for_start` may start. Has no effect on a job that has started, or if it is repeated.
        #[prost(message, tag = "9")]
        Start(super::Start),
    }
}
/// From the agent: `accepted`, then `started`, then any number of `output`, `stdin_ack` and `signal_ack`, then the
/// output files, then exactly one `outcome`, which follows the last byte of output and the acknowledgement of the last
/// output file. `outcome` may follow `accepted` at once if the kernel cannot execute the program.
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct RunResponse {
    #[prost(oneof = "run_response::Message", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub message: ::core::option::Option<run_response::Message>,
}
/// Nested message and enum types in `RunResponse`.
pub mod run_response {
    #[derive(Clone, PartialEq, ::prost::Oneof)]
    pub enum Message {
        #[prost(message, tag = "1")]
        Accepted(super::Accepted),
        #[prost(message, tag = "2")]
        Started(super::Started),
        #[prost(message, tag = "3")]
        Output(super::Output),
        #[prost(message, tag = "4")]
        StdinAck(super::StdinAck),
        #[prost(message, tag = "5")]
        Outcome(super::Outcome),
        #[prost(message, tag = "6")]
        OutputFile(super::OutputFile),
        #[prost(message, tag = "7")]
        SignalAck(super::SignalAck),
    }
}
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct JobSpec {
    /// File name of the program on the router, 1 to 64 bytes without '/' and control characters. `ps` shows it, and
    /// argv\[0\] ends with it.
    #[prost(string, tag = "1")]
    pub name: ::prost::alloc::string::String,
    #[prost(message, optional, tag = "2")]
    pub program: ::core::option::Option<Blob>,
    /// argv\[1\] and the following. No element may contain a zero byte.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub args: ::prost::alloc::vec::Vec<::prost::alloc::vec::Vec<u8>>,
    /// Variables that the agent adds to the environment of every program (PATH, HOME, TMPDIR). The last one of a name
    /// wins.
    #[prost(message, repeated, tag = "4")]
    pub env: ::prost::alloc::vec::Vec<EnvVar>,
    #[prost(message, optional, tag = "5")]
    pub limits: ::core::option::Option<Limits>,
    /// The agent sends at most this many bytes of each output beyond those that the controller has acknowledged. 1 to
    /// 1,048,576.
    #[prost(uint32, tag = "6")]
    pub output_window: u32,
    /// Input files, which the agent unpacks before it starts the program: at most 4 archives. Capability "inputs".
    #[prost(message, repeated, tag = "7")]
    pub inputs: ::prost::alloc::vec::Vec<InputArchive>,
    /// The program's working directory, relative to the job's directory: a path by the rules of `output_files`, without
    /// '*' and '?', of a directory in one of the archives. Empty: the job's directory itself. Capability "inputs".
    #[prost(bytes = "vec", tag = "9")]
    pub working_directory: ::prost::alloc::vec::Vec<u8>,
    /// The agent replaces these bytes, 16 to 64 of them, by the absolute path of the job's directory wherever they occur
    /// in an argument or in the value of a variable. Empty: it replaces nothing. Capability "inputs".
    #[prost(bytes = "vec", tag = "18")]
    pub workdir_placeholder: ::prost::alloc::vec::Vec<u8>,
    /// The agent starts the program only on `Start`, once the program and its input files have arrived. It gives the
    /// program half of the spare memory, and leaves the other half to the next job, which waits while this one runs.
    /// Capability "wait_for_start".
    #[prost(bool, tag = "19")]
    pub wait_for_start: bool,
    /// Standard error goes into the pipe of standard output, which preserves the order of writes. Capability
    /// "merge_stderr".
    #[prost(bool, tag = "20")]
    pub merge_stderr: bool,
    /// Files for the agent to send when the program has exited: paths relative to the job's directory, at most 64 of at
    /// most 1,024 bytes. Each is one or more names separated by '/', none of them "." or ".."; or "." alone, for the whole
    /// directory. In a name, '*' matches any bytes and '?' one byte, but neither matches a '.' at the beginning of a name.
    /// For a directory, the agent sends everything below it except names that begin with '.' (FILE_PROBLEM_HIDDEN). It
    /// never sends `.git`, in either case. Capability "outputs".
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub output_files: ::prost::alloc::vec::Vec<::prost::alloc::vec::Vec<u8>>,
    /// If a signal kills the program, the kernel writes a core file, which the agent sends as the last output file.
    /// Capability "core".
    #[prost(bool, tag = "16")]
    pub core: bool,
    /// The program gets a terminal of this size instead of three pipes; everything that it writes is standard output.
    #[prost(message, optional, tag = "10")]
    pub terminal: ::core::option::Option<WindowSize>,
    /// Names the job on this agent: 1 to 32 digits and lower-case letters. The controller chooses it at random, so that it
    /// can attach to the job even if it never received `Accepted`. A `spec` with the id of a job that the controller has
    /// already attaches to that job. Empty: the agent chooses.
    #[prost(string, tag = "11")]
    pub job_id: ::prost::alloc::string::String,
    /// Milliseconds for which the job runs on without a controller, and for which the agent keeps its outcome. 0: the
    /// agent kills the job when its connection breaks. At most 86,400,000.
    #[prost(uint64, tag = "12")]
    pub disconnect_timeout_ms: u64,
    /// Nice value of the program, 0 to 19 (setpriority(2)).
    #[prost(uint32, tag = "14")]
    pub nice: u32,
    /// The user that the program runs as: a user name, UID or UID:GID of the router. Such a program cannot gain privileges
    /// (prctl(2), PR_SET_NO_NEW_PRIVS). Empty: the agent's own user. Capability "user".
    #[prost(string, tag = "15")]
    pub user: ::prost::alloc::string::String,
    /// The job runs without a controller until it exits by itself; its standard input is empty. The agent keeps its
    /// outcome until a controller has fetched it, or until eight more jobs have ended.
    #[prost(bool, tag = "13")]
    pub detached: bool,
    /// Digests of blobs that the controller has, 32 bytes each, at most 16, the one most similar to the program first. The
    /// controller can send the program as a delta against one of them. Capability "delta".
    #[prost(bytes = "vec", repeated, tag = "17")]
    pub bases: ::prost::alloc::vec::Vec<::prost::alloc::vec::Vec<u8>>,
    /// The controller decompresses `Output.data` and `OutputFile.data`, so the agent may compress them on this stream.
    /// Capability "compress_output".
    #[prost(bool, tag = "21")]
    pub accept_compressed_output: bool,
    /// Once the job is detached, and while no controller is attached to it, the program never waits for a reader: the agent
    /// keeps at least the last `log_size` bytes of each output, acknowledged or not, and drops older ones. At most
    /// 1,048,576. 0: the program waits as soon as a window of its output is unacknowledged. Capability "log".
    #[prost(uint32, tag = "22")]
    pub log_size: u32,
}
/// In characters, each at most 65,535.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct WindowSize {
    #[prost(uint32, tag = "1")]
    pub rows: u32,
    #[prost(uint32, tag = "2")]
    pub columns: u32,
}
/// Reattaches to a job, and says how much of its output the controller has.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Attach {
    #[prost(string, tag = "1")]
    pub job_id: ::prost::alloc::string::String,
    /// The controller has all output before these offsets. Absent: it has none, and wants the output that no controller has
    /// acknowledged; of a job that has ended, all that the agent keeps. The agent may have dropped output of a job with a
    /// log (`JobSpec.log_size`): `Accepted` then names a later offset.
    #[prost(uint64, optional, tag = "2")]
    pub stdout_offset: ::core::option::Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    pub stderr_offset: ::core::option::Option<u64>,
    /// The controller has everything of the output files before this position. Absent: the agent begins with the first
    /// file that no controller has acknowledged completely.
    #[prost(message, optional, tag = "4")]
    pub files: ::core::option::Option<FilePosition>,
    /// As `JobSpec.accept_compressed_output`, for this stream: another controller may have started the job.
    #[prost(bool, tag = "5")]
    pub accept_compressed_output: bool,
}
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Start {}
/// The controller wants nothing more of the job, and the agent ends the stream. The agent kills a job that still runs,
/// as if its disconnect timeout had expired. It keeps the outcome and the output of a job that has ended until it gets
/// this message, or until that timeout has expired.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Discard {}
/// The controller leaves the job, as if its connection had broken, and the agent ends the stream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Detach {
    /// The job is detached from now on, as with `JobSpec.detached`; its standard input stays open. Capability "log".
    #[prost(bool, tag = "1")]
    pub run_on: bool,
}
/// A file, named by the digest of its content.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Blob {
    /// SHA-256 of the content: 32 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub sha256: ::prost::alloc::vec::Vec<u8>,
    /// Length in bytes. The agent decides by it whether the blob fits, before any content is sent.
    #[prost(uint64, tag = "2")]
    pub size: u64,
    /// XXH32 of the content with seed 0 (xxHash specification). An agent with the capability "checksum" compares it with
    /// that of the decoded content, and computes the digest, which takes a router's CPU thirty times as long, only when
    /// another controller needs the blob. Absent: the agent computes the digest at once.
    #[prost(fixed32, optional, tag = "3")]
    pub checksum: ::core::option::Option<u32>,
}
/// Files, as a cpio archive in the format "newc", without checksums (cpio(5)): each directory before its content, then
/// regular files, then symbolic links; nothing else, and no name twice. Names are paths by the rules of
/// `JobSpec.output_files`. Of a file's mode, the agent uses the file type and whether the owner may execute it.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct InputArchive {
    #[prost(message, optional, tag = "1")]
    pub archive: ::core::option::Option<Blob>,
    /// Name of the directory in the job's directory into which the agent unpacks the files. Each archive has a name of its
    /// own. The first one may have the name ".", for the job's directory itself. Capability of ".": "input_places".
    #[prost(bytes = "vec", tag = "2")]
    pub directory: ::prost::alloc::vec::Vec<u8>,
    /// Bytes of memory that the unpacked files take: the length of each file, rounded up to a multiple of 4,096, plus
    /// 1,024 for each file, directory and link. The agent decides by it whether they fit.
    #[prost(uint64, tag = "3")]
    pub size: u64,
    /// As `JobSpec.bases`, for the archive.
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub bases: ::prost::alloc::vec::Vec<::prost::alloc::vec::Vec<u8>>,
    /// Number of entries in the archive, plus one for the directory. The agent decides by it whether the file system has
    /// enough inodes, and unpacks no more entries than this. 0 from a controller that does not count them.
    #[prost(uint32, tag = "5")]
    pub entries: u32,
    /// The directory is next to the job's directory, at `../` and its name, so that a program does not find it among its
    /// own files, and the agent never sends it as an output file. Capability "input_places".
    #[prost(bool, tag = "6")]
    pub aside: bool,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct EnvVar {
    /// Not empty, and without '=' and zero bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub name: ::prost::alloc::vec::Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub value: ::prost::alloc::vec::Vec<u8>,
}
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Limits {
    /// The agent terminates the job when it has run for this many milliseconds. 0: no limit.
    #[prost(uint64, tag = "1")]
    pub timeout_ms: u64,
    /// Milliseconds between TERM and KILL when the agent terminates a job. 0: KILL at once. At most 60,000.
    #[prost(uint64, tag = "2")]
    pub grace_ms: u64,
    /// The agent terminates the job when it has written nothing for this many milliseconds. 0: no limit.
    #[prost(uint64, tag = "3")]
    pub idle_timeout_ms: u64,
}
/// The agent has given the job an id and reserved its memory. The controller now sends the blobs in `missing_blobs`, in
/// order, and no others.
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Accepted {
    /// Names the job on this agent, unique since the router booted.
    #[prost(string, tag = "1")]
    pub job_id: ::prost::alloc::string::String,
    #[prost(message, repeated, tag = "2")]
    pub missing_blobs: ::prost::alloc::vec::Vec<MissingBlob>,
    /// After `attach`: offset of the next byte of each stream. The controller sends its input from there on, and the agent
    /// its outputs.
    #[prost(uint64, tag = "3")]
    pub stdin_offset: u64,
    #[prost(uint64, tag = "4")]
    pub stdout_offset: u64,
    #[prost(uint64, tag = "5")]
    pub stderr_offset: u64,
    /// Number of the last signal that the agent has, 0 for none. The controller continues with the next number, and does
    /// not send these signals again.
    #[prost(uint64, tag = "6")]
    pub signals: u64,
}
/// A blob that the agent does not have, or of which it has only the beginning.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct MissingBlob {
    #[prost(bytes = "vec", tag = "1")]
    pub sha256: ::prost::alloc::vec::Vec<u8>,
    /// Offset from which the controller sends, in encoded bytes. It continues in the encoding with which it began the
    /// blob.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// The first of `JobSpec.bases` that the agent has. Empty if it has none of them, or no space for both blobs. The
    /// controller may send the blob as a delta against it.
    #[prost(bytes = "vec", tag = "3")]
    pub base: ::prost::alloc::vec::Vec<u8>,
}
/// A piece of the first blob in `missing_blobs` that is not complete yet. A blob is complete when it has its declared
/// size.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct BlobChunk {
    /// Offset of `data`, in encoded bytes.
    #[prost(uint64, tag = "1")]
    pub offset: u64,
    /// At most 1,048,576 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub data: ::prost::bytes::Bytes,
    /// Encoding of the blob, in its first chunk only.
    #[prost(enumeration = "Encoding", tag = "3")]
    pub encoding: i32,
}
/// The program has started.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Started {
    /// The controller sends at most this many bytes of standard input beyond those that the agent has acknowledged. 1 to
    /// 1,048,576.
    #[prost(uint32, tag = "1")]
    pub stdin_window: u32,
    /// The program has a terminal, because `JobSpec.terminal` is set.
    #[prost(bool, tag = "2")]
    pub terminal: bool,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Stdin {
    #[prost(uint64, tag = "1")]
    pub offset: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub data: ::prost::bytes::Bytes,
    /// True in the last message: the program reads end of file after `data`.
    #[prost(bool, tag = "3")]
    pub end: bool,
}
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct StdinAck {
    /// The agent has written all bytes before this offset to the program's pipe.
    #[prost(uint64, tag = "1")]
    pub offset: u64,
    /// The program has closed its standard input: the controller sends nothing further.
    #[prost(bool, tag = "2")]
    pub closed: bool,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Output {
    #[prost(enumeration = "Stream", tag = "1")]
    pub stream: i32,
    /// Offset of the first byte of `data` in the uncompressed stream.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// At most 16,384 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub data: ::prost::bytes::Bytes,
    /// If not 0, `data` is one compressed block (LZ4 Block Format Description) that decompresses to this many bytes, at
    /// most 16,384. 0 unless the controller has set `accept_compressed_output`.
    #[prost(uint32, tag = "4")]
    pub uncompressed_size: u32,
}
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct OutputAck {
    #[prost(enumeration = "Stream", tag = "1")]
    pub stream: i32,
    /// The controller has written out all bytes before this offset.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// Nobody reads this output any more, so the agent closes the program's pipe, as in a shell's pipeline.
    #[prost(bool, tag = "3")]
    pub closed: bool,
}
/// A position in the sequence of a job's output files: `offset` in the file with the number `file`, after all files with
/// a lower number. The end of the sequence is the number of files, with offset 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct FilePosition {
    #[prost(uint32, tag = "1")]
    pub file: u32,
    #[prost(uint64, tag = "2")]
    pub offset: u64,
}
/// A piece of an output file. The agent sends the files one after the other when the program has exited, each as it was
/// at that time or not at all.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct OutputFile {
    /// Number of the output file, from 0.
    #[prost(uint32, tag = "1")]
    pub file: u32,
    /// Offset of `data` in the file. A gap between two pieces, or after the last one, is a hole, which reads as zeros.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// At most 16,384 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub data: ::prost::bytes::Bytes,
    /// In the first piece of each file on each stream.
    #[prost(message, optional, tag = "4")]
    pub info: ::core::option::Option<FileInfo>,
    /// The agent sends no more of this file, and the controller must discard the pieces that it has.
    #[prost(enumeration = "FileProblem", tag = "5")]
    pub problem: i32,
    /// As `Output.uncompressed_size`, for `data` of this message.
    #[prost(uint32, tag = "6")]
    pub uncompressed_size: u32,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct FileInfo {
    /// Path of the file, relative to the job's directory. If the agent found no file: the requested path.
    #[prost(bytes = "vec", tag = "1")]
    pub path: ::prost::alloc::vec::Vec<u8>,
    /// Index of the matching element of `JobSpec.output_files`. Has no meaning for a core file.
    #[prost(uint32, tag = "2")]
    pub request: u32,
    /// Length in bytes.
    #[prost(uint64, tag = "3")]
    pub size: u64,
    /// The file's owner may execute it.
    #[prost(bool, tag = "4")]
    pub executable: bool,
    /// The file is the core file.
    #[prost(bool, tag = "5")]
    pub core: bool,
    /// Number of output files of the job, including those with a problem. It is equal in all files.
    #[prost(uint32, tag = "6")]
    pub files: u32,
}
/// A signal for every process in the job's process group.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Signal {
    /// Name without SIG: "INT" (RFC 4254, section 6.9).
    #[prost(string, tag = "1")]
    pub name: ::prost::alloc::string::String,
    /// Counts the signals of a job from 1, without a gap. The agent ignores a number that it has already, so that the
    /// controller can repeat signals that a broken connection may have lost. 0: the agent neither counts nor acknowledges
    /// the signal. Capability "signals".
    #[prost(uint64, tag = "2")]
    pub number: u64,
}
/// The agent has the signals up to this number, and delivers each of them to the program once, unless the program exits
/// first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct SignalAck {
    #[prost(uint64, tag = "1")]
    pub number: u64,
}
/// How the job ended. An outcome never reports a failure of Hop itself: in that case there is a gRPC status and no
/// outcome.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Outcome {
    #[prost(enumeration = "Cause", tag = "4")]
    pub cause: i32,
    #[prost(message, optional, tag = "5")]
    pub usage: ::core::option::Option<Usage>,
    /// Number of bytes that the program wrote. The controller has received all of them by now.
    #[prost(uint64, tag = "6")]
    pub stdout_bytes: u64,
    #[prost(uint64, tag = "7")]
    pub stderr_bytes: u64,
    /// A process that left the job's process group still had an output open; what it writes from now on is lost.
    #[prost(bool, tag = "8")]
    pub output_abandoned: bool,
    /// Number of processes that the program left running and that the agent killed.
    #[prost(uint32, tag = "9")]
    pub orphans: u32,
    /// Details of CAUSE_MEMORY.
    #[prost(message, optional, tag = "10")]
    pub out_of_memory: ::core::option::Option<OutOfMemory>,
    /// Why the agent deleted requested output files before the controller had fetched them: CAUSE_MEMORY, because the
    /// router needed their memory; CAUSE_EXHAUSTED, because it needed their inodes; or CAUSE_AGENT_STOPPED.
    #[prost(enumeration = "Cause", tag = "11")]
    pub files_lost: i32,
    /// Details of CAUSE_EXHAUSTED.
    #[prost(message, optional, tag = "12")]
    pub exhausted: ::core::option::Option<Exhausted>,
    /// Bytes of standard input that the program and the processes that it started have read: those that the agent wrote to
    /// the pipe, less those that were still in it when all had exited. Absent: not known, as with a terminal.
    #[prost(uint64, optional, tag = "13")]
    pub stdin_bytes: ::core::option::Option<u64>,
    #[prost(oneof = "outcome::Ending", tags = "1, 2, 3")]
    pub ending: ::core::option::Option<outcome::Ending>,
}
/// Nested message and enum types in `Outcome`.
pub mod outcome {
    #[derive(Clone, PartialEq, Eq, Hash, ::prost::Oneof)]
    pub enum Ending {
        /// The program exited with this status, 0 to 255.
        #[prost(int32, tag = "1")]
        ExitCode(i32),
        /// A signal killed the program.
        #[prost(message, tag = "2")]
        Signaled(super::Signaled),
        /// The kernel refused to execute the program.
        #[prost(message, tag = "3")]
        NotExecuted(super::NotExecuted),
    }
}
/// A resource that ran short on the router, whose own daemons need it too.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Exhausted {
    #[prost(enumeration = "Resource", tag = "1")]
    pub resource: i32,
    /// Number that was free when the agent killed the job.
    #[prost(uint64, tag = "2")]
    pub available: u64,
    /// The agent kills a job when fewer than this many are free.
    #[prost(uint64, tag = "3")]
    pub limit: u64,
    /// Number that the job held.
    #[prost(uint64, tag = "4")]
    pub held: u64,
    /// For RESOURCE_INODES: the mount point of the file system, to show to the user.
    #[prost(string, tag = "5")]
    pub place: ::prost::alloc::string::String,
}
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct OutOfMemory {
    /// Bytes that were available on the router when the agent or the kernel killed the job.
    #[prost(uint64, tag = "1")]
    pub available: u64,
    /// The agent kills a job when fewer bytes than this are available.
    #[prost(uint64, tag = "2")]
    pub limit: u64,
    /// Bytes that the job held: its processes and the files that it wrote. 0 if the kernel killed it before the agent did.
    #[prost(uint64, tag = "3")]
    pub held: u64,
    /// The router had reached the kernel's commit limit, not the end of its RAM (vm.overcommit_memory is 2).
    #[prost(bool, tag = "4")]
    pub of_promises: bool,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Signaled {
    #[prost(string, tag = "1")]
    pub name: ::prost::alloc::string::String,
    #[prost(bool, tag = "2")]
    pub core_dumped: bool,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct NotExecuted {
    /// The kernel's error message, to show to the user.
    #[prost(string, tag = "1")]
    pub reason: ::prost::alloc::string::String,
}
/// Resources that the program, and those of its children for which it waited, have used (getrusage(2)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Usage {
    #[prost(uint64, tag = "1")]
    pub wall_ms: u64,
    #[prost(uint64, tag = "2")]
    pub user_ms: u64,
    #[prost(uint64, tag = "3")]
    pub system_ms: u64,
    #[prost(uint64, tag = "4")]
    pub max_rss_bytes: u64,
}
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct ListJobsRequest {}
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct ListJobsResponse {
    /// In the order of their admission, the oldest first.
    #[prost(message, repeated, tag = "1")]
    pub jobs: ::prost::alloc::vec::Vec<Job>,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Job {
    #[prost(string, tag = "1")]
    pub job_id: ::prost::alloc::string::String,
    /// `JobSpec.name`.
    #[prost(string, tag = "2")]
    pub name: ::prost::alloc::string::String,
    #[prost(enumeration = "JobState", tag = "3")]
    pub state: i32,
    /// Milliseconds since the agent admitted the job.
    #[prost(uint64, tag = "4")]
    pub age_ms: u64,
    /// A controller is attached to the job.
    #[prost(bool, tag = "5")]
    pub attached: bool,
    /// The job belongs to the calling controller.
    #[prost(bool, tag = "6")]
    pub own: bool,
    #[prost(bool, tag = "7")]
    pub detached: bool,
    /// Bytes of output that the agent keeps and that no controller has acknowledged.
    #[prost(uint64, tag = "8")]
    pub unread: u64,
    /// How the job ended; absent if it has not, or if it failed. Capability "log".
    #[prost(message, optional, tag = "9")]
    pub outcome: ::core::option::Option<Outcome>,
    /// What the job waits for, if it waits for something.
    #[prost(enumeration = "WaitReason", tag = "10")]
    pub waits_for: i32,
    /// Bytes of output that the agent has dropped before a controller acknowledged them (`JobSpec.log_size`).
    #[prost(uint64, tag = "11")]
    pub dropped: u64,
    /// The agent keeps a log of the job's output (`JobSpec.log_size`).
    #[prost(bool, tag = "12")]
    pub has_log: bool,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct ReadOutputRequest {
    #[prost(string, tag = "1")]
    pub job_id: ::prost::alloc::string::String,
    /// The stream goes on with what the program writes, until the job has ended. Capability "log".
    #[prost(bool, tag = "2")]
    pub follow: bool,
    /// Not 0: only output of the last so many milliseconds, and at most a 64th of the log that is older. Capability "log".
    #[prost(uint64, tag = "3")]
    pub since_ms: u64,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct ReadOutputResponse {
    /// A gap before `output.offset` is output that the agent has dropped, or that another controller has acknowledged.
    #[prost(message, optional, tag = "1")]
    pub output: ::core::option::Option<Output>,
    /// Once in a stream with `follow`, without output: all output so far has been sent.
    #[prost(bool, tag = "2")]
    pub caught_up: bool,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct SignalJobRequest {
    #[prost(string, tag = "1")]
    pub job_id: ::prost::alloc::string::String,
    /// Name without SIG: "INT" (RFC 4254, section 6.9).
    #[prost(string, tag = "2")]
    pub signal: ::prost::alloc::string::String,
}
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct SignalJobResponse {}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct AddNextKeyRequest {
    /// Fingerprint of the next key: the SHA-256 of its SubjectPublicKeyInfo, 32 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub sha256: ::prost::alloc::vec::Vec<u8>,
}
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct AddNextKeyResponse {}
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct RetirePreviousKeyRequest {}
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct RetirePreviousKeyResponse {}
/// Why the agent refused a call or a job. The agent packs it as google.protobuf.Any (type URL
/// type.googleapis.com/hop.v1.ErrorDetail) into the `details` of the google.rpc.Status in the trailer
/// grpc-status-details-bin, in every status that it makes itself. Next to it is a google.rpc.ErrorInfo with the same
/// content for clients that do not know this file: `reason` is the value of `reason` without its prefix ("NO_SPACE"),
/// `domain` is "hop.v1", and `metadata` has "needed" and "available" for the reasons that have them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct ErrorDetail {
    #[prost(enumeration = "ErrorReason", tag = "1")]
    pub reason: i32,
    /// The amounts that the call needed and that the router had, for NO_SPACE, NO_MEMORY, NO_INODES, NO_PROMISE,
    /// TOO_MANY_JOBS and TOO_MANY_CONNECTIONS.
    #[prost(uint64, tag = "2")]
    pub needed: u64,
    #[prost(uint64, tag = "3")]
    pub available: u64,
}
/// Which of the processes that a program started the agent can find and kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub enum Containment {
    Unspecified = 0,
    /// Those in the program's process group. The agent reports processes that left the group, and does not kill them.
    Group = 1,
    /// All of them, in any process group and session.
    Descendants = 2,
    /// All of them, by a cgroup: however fast the program forks, and also after the agent itself was killed.
    Cgroup = 3,
}
impl Containment {
    /// String value of the enum field names used in the ProtoBuf definition.
    ///
    /// The values are not transformed in any way and thus are considered stable
    /// (if the ProtoBuf definition does not change) and safe for programmatic use.
    pub fn as_str_name(&self) -> &'static str {
        match self {
            Self::Unspecified => "CONTAINMENT_UNSPECIFIED",
            Self::Group => "CONTAINMENT_GROUP",
            Self::Descendants => "CONTAINMENT_DESCENDANTS",
            Self::Cgroup => "CONTAINMENT_CGROUP",
        }
    }
    /// Creates an enum from field names used in the ProtoBuf definition.
    pub fn from_str_name(value: &str) -> ::core::option::Option<Self> {
        match value {
            "CONTAINMENT_UNSPECIFIED" => Some(Self::Unspecified),
            "CONTAINMENT_GROUP" => Some(Self::Group),
            "CONTAINMENT_DESCENDANTS" => Some(Self::Descendants),
            "CONTAINMENT_CGROUP" => Some(Self::Cgroup),
            _ => None,
        }
    }
}
/// Encoding in which a controller sends a blob. docs/protocol.md describes the formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub enum Encoding {
    /// In every chunk but the first one.
    Unspecified = 0,
    /// The blob's bytes, not encoded.
    Identity = 5,
    /// One zstd frame with a window of at most 512 KiB (RFC 8878). Capability "zstd".
    Zstd = 1,
    /// One LZ4 frame of 64 KiB blocks, without checksums (LZ4 Frame Format Description). Capability "lz4".
    Lz4 = 2,
    /// Instructions that turn `MissingBlob.base` into the blob, in a zstd frame as in ENCODING_ZSTD. Capability "delta".
    Delta = 3,
    /// A delta as in ENCODING_DELTA, which begins with a list of the moved parts of a program; the agent adjusts the
    /// addresses of these parts in all that it copies from the base. Capability "relocate".
    RelocatedDelta = 4,
}
impl Encoding {
    /// String value of the enum field names used in the ProtoBuf definition.
    ///
    /// The values are not transformed in any way and thus are considered stable
    /// (if the ProtoBuf definition does not change) and safe for programmatic use.
    pub fn as_str_name(&self) -> &'static str {
        match self {
            Self::Unspecified => "ENCODING_UNSPECIFIED",
            Self::Identity => "ENCODING_IDENTITY",
            Self::Zstd => "ENCODING_ZSTD",
            Self::Lz4 => "ENCODING_LZ4",
            Self::Delta => "ENCODING_DELTA",
            Self::RelocatedDelta => "ENCODING_RELOCATED_DELTA",
        }
    }
    /// Creates an enum from field names used in the ProtoBuf definition.
    pub fn from_str_name(value: &str) -> ::core::option::Option<Self> {
        match value {
            "ENCODING_UNSPECIFIED" => Some(Self::Unspecified),
            "ENCODING_IDENTITY" => Some(Self::Identity),
            "ENCODING_ZSTD" => Some(Self::Zstd),
            "ENCODING_LZ4" => Some(Self::Lz4),
            "ENCODING_DELTA" => Some(Self::Delta),
            "ENCODING_RELOCATED_DELTA" => Some(Self::RelocatedDelta),
            _ => None,
        }
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub enum Stream {
    Unspecified = 0,
    Stdout = 1,
    Stderr = 2,
}
impl Stream {
    /// String value of the enum field names used in the ProtoBuf definition.
    ///
    /// The values are not transformed in any way and thus are considered stable
    /// (if the ProtoBuf definition does not change) and safe for programmatic use.
    pub fn as_str_name(&self) -> &'static str {
        match self {
            Self::Unspecified => "STREAM_UNSPECIFIED",
            Self::Stdout => "STREAM_STDOUT",
            Self::Stderr => "STREAM_STDERR",
        }
    }
    /// Creates an enum from field names used in the ProtoBuf definition.
    pub fn from_str_name(value: &str) -> ::core::option::Option<Self> {
        match value {
            "STREAM_UNSPECIFIED" => Some(Self::Unspecified),
            "STREAM_STDOUT" => Some(Self::Stdout),
            "STREAM_STDERR" => Some(Self::Stderr),
            _ => None,
        }
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub enum FileProblem {
    Unspecified = 0,
    /// The file does not exist.
    NotThere = 1,
    /// The file is a symbolic link, a device, a pipe or a socket, or it is on another file system than the job's
    /// directory.
    NotAFile = 2,
    /// With this file, the output files of the job would exceed 256 MiB.
    TooLarge = 3,
    /// There are more than 1,024 files, 64 KiB of paths, or 4,096 names to look at. For a path of more than 32 names or
    /// 1,024 bytes: this directory or file is too deep, and the agent sends the others.
    TooMany = 4,
    /// The kernel refused to let the agent read the file.
    Unreadable = 5,
    /// The file has changed since the program exited.
    Changed = 6,
    /// The program ran as another user than the agent, and the file does not belong to that user.
    NotOwn = 7,
    /// The agent found the file in a requested directory, and its name begins with '.': it sends such a file only if the
    /// requested name begins with '.' too.
    Hidden = 8,
}
impl FileProblem {
    /// String value of the enum field names used in the ProtoBuf definition.
    ///
    /// The values are not transformed in any way and thus are considered stable
    /// (if the ProtoBuf definition does not change) and safe for programmatic use.
    pub fn as_str_name(&self) -> &'static str {
        match self {
            Self::Unspecified => "FILE_PROBLEM_UNSPECIFIED",
            Self::NotThere => "FILE_PROBLEM_NOT_THERE",
            Self::NotAFile => "FILE_PROBLEM_NOT_A_FILE",
            Self::TooLarge => "FILE_PROBLEM_TOO_LARGE",
            Self::TooMany => "FILE_PROBLEM_TOO_MANY",
            Self::Unreadable => "FILE_PROBLEM_UNREADABLE",
            Self::Changed => "FILE_PROBLEM_CHANGED",
            Self::NotOwn => "FILE_PROBLEM_NOT_OWN",
            Self::Hidden => "FILE_PROBLEM_HIDDEN",
        }
    }
    /// Creates an enum from field names used in the ProtoBuf definition.
    pub fn from_str_name(value: &str) -> ::core::option::Option<Self> {
        match value {
            "FILE_PROBLEM_UNSPECIFIED" => Some(Self::Unspecified),
            "FILE_PROBLEM_NOT_THERE" => Some(Self::NotThere),
            "FILE_PROBLEM_NOT_A_FILE" => Some(Self::NotAFile),
            "FILE_PROBLEM_TOO_LARGE" => Some(Self::TooLarge),
            "FILE_PROBLEM_TOO_MANY" => Some(Self::TooMany),
            "FILE_PROBLEM_UNREADABLE" => Some(Self::Unreadable),
            "FILE_PROBLEM_CHANGED" => Some(Self::Changed),
            "FILE_PROBLEM_NOT_OWN" => Some(Self::NotOwn),
            "FILE_PROBLEM_HIDDEN" => Some(Self::Hidden),
            _ => None,
        }
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub enum Resource {
    Unspecified = 0,
    /// Inodes of the file system on which the agent keeps the jobs' directories.
    Inodes = 1,
    /// Threads, of which each process has at least one.
    Threads = 2,
}
impl Resource {
    /// String value of the enum field names used in the ProtoBuf definition.
    ///
    /// The values are not transformed in any way and thus are considered stable
    /// (if the ProtoBuf definition does not change) and safe for programmatic use.
    pub fn as_str_name(&self) -> &'static str {
        match self {
            Self::Unspecified => "RESOURCE_UNSPECIFIED",
            Self::Inodes => "RESOURCE_INODES",
            Self::Threads => "RESOURCE_THREADS",
        }
    }
    /// Creates an enum from field names used in the ProtoBuf definition.
    pub fn from_str_name(value: &str) -> ::core::option::Option<Self> {
        match value {
            "RESOURCE_UNSPECIFIED" => Some(Self::Unspecified),
            "RESOURCE_INODES" => Some(Self::Inodes),
            "RESOURCE_THREADS" => Some(Self::Threads),
            _ => None,
        }
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub enum Cause {
    Unspecified = 0,
    /// The program exited by itself, or by a signal that Hop only forwarded.
    Program = 1,
    /// `Limits.timeout_ms` expired.
    Timeout = 2,
    /// The agent is stopping, because it received SIGTERM.
    AgentStopped = 3,
    /// `Limits.idle_timeout_ms` expired.
    IdleTimeout = 4,
    /// The router was about to run out of memory, and this job held most of it.
    Memory = 5,
    /// No controller was attached for longer than `JobSpec.disconnect_timeout_ms`.
    Abandoned = 6,
    /// The router was about to run out of another resource than memory, and this job held most of it.
    Exhausted = 7,
}
impl Cause {
    /// String value of the enum field names used in the ProtoBuf definition.
    ///
    /// The values are not transformed in any way and thus are considered stable
    /// (if the ProtoBuf definition does not change) and safe for programmatic use.
    pub fn as_str_name(&self) -> &'static str {
        match self {
            Self::Unspecified => "CAUSE_UNSPECIFIED",
            Self::Program => "CAUSE_PROGRAM",
            Self::Timeout => "CAUSE_TIMEOUT",
            Self::AgentStopped => "CAUSE_AGENT_STOPPED",
            Self::IdleTimeout => "CAUSE_IDLE_TIMEOUT",
            Self::Memory => "CAUSE_MEMORY",
            Self::Abandoned => "CAUSE_ABANDONED",
            Self::Exhausted => "CAUSE_EXHAUSTED",
        }
    }
    /// Creates an enum from field names used in the ProtoBuf definition.
    pub fn from_str_name(value: &str) -> ::core::option::Option<Self> {
        match value {
            "CAUSE_UNSPECIFIED" => Some(Self::Unspecified),
            "CAUSE_PROGRAM" => Some(Self::Program),
            "CAUSE_TIMEOUT" => Some(Self::Timeout),
            "CAUSE_AGENT_STOPPED" => Some(Self::AgentStopped),
            "CAUSE_IDLE_TIMEOUT" => Some(Self::IdleTimeout),
            "CAUSE_MEMORY" => Some(Self::Memory),
            "CAUSE_ABANDONED" => Some(Self::Abandoned),
            "CAUSE_EXHAUSTED" => Some(Self::Exhausted),
            _ => None,
        }
    }
}
/// What a job waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub enum WaitReason {
    Unspecified = 0,
    /// The controller is to send the program or its input files.
    Upload = 1,
    /// The controller is to send `Start`.
    Start = 2,
    /// A controller is to acknowledge output: the program has filled the window of one of them.
    Output = 3,
    /// The program has exited, and a controller is to fetch the output files.
    Artifacts = 4,
}
impl WaitReason {
    /// String value of the enum field names used in the ProtoBuf definition.
    ///
    /// The values are not transformed in any way and thus are considered stable
    /// (if the ProtoBuf definition does not change) and safe for programmatic use.
    pub fn as_str_name(&self) -> &'static str {
        match self {
            Self::Unspecified => "WAIT_REASON_UNSPECIFIED",
            Self::Upload => "WAIT_REASON_UPLOAD",
            Self::Start => "WAIT_REASON_START",
            Self::Output => "WAIT_REASON_OUTPUT",
            Self::Artifacts => "WAIT_REASON_ARTIFACTS",
        }
    }
    /// Creates an enum from field names used in the ProtoBuf definition.
    pub fn from_str_name(value: &str) -> ::core::option::Option<Self> {
        match value {
            "WAIT_REASON_UNSPECIFIED" => Some(Self::Unspecified),
            "WAIT_REASON_UPLOAD" => Some(Self::Upload),
            "WAIT_REASON_START" => Some(Self::Start),
            "WAIT_REASON_OUTPUT" => Some(Self::Output),
            "WAIT_REASON_ARTIFACTS" => Some(Self::Artifacts),
            _ => None,
        }
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub enum JobState {
    Unspecified = 0,
    /// The controller is still uploading the program or its input files.
    Receiving = 1,
    Running = 2,
    /// The program has exited, and the agent keeps the outcome for a controller.
    Ended = 3,
}
impl JobState {
    /// String value of the enum field names used in the ProtoBuf definition.
    ///
    /// The values are not transformed in any way and thus are considered stable
    /// (if the ProtoBuf definition does not change) and safe for programmatic use.
    pub fn as_str_name(&self) -> &'static str {
        match self {
            Self::Unspecified => "JOB_STATE_UNSPECIFIED",
            Self::Receiving => "JOB_STATE_RECEIVING",
            Self::Running => "JOB_STATE_RUNNING",
            Self::Ended => "JOB_STATE_ENDED",
        }
    }
    /// Creates an enum from field names used in the ProtoBuf definition.
    pub fn from_str_name(value: &str) -> ::core::option::Option<Self> {
        match value {
            "JOB_STATE_UNSPECIFIED" => Some(Self::Unspecified),
            "JOB_STATE_RECEIVING" => Some(Self::Receiving),
            "JOB_STATE_RUNNING" => Some(Self::Running),
            "JOB_STATE_ENDED" => Some(Self::Ended),
            _ => None,
        }
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub enum ErrorReason {
    Unspecified = 0,
    /// The program does not fit into the store. In bytes.
    NoSpace = 1,
    /// The program does not fit into memory. In bytes; `available` does not include the reserve.
    NoMemory = 2,
    /// The agent runs as many jobs as it may.
    TooManyJobs = 3,
    /// The store is mounted noexec.
    NotExecutable = 4,
    /// The content of a blob does not have the digest that names it.
    DigestMismatch = 5,
    /// The controller violated the rules of this file.
    Protocol = 6,
    /// A file operation failed on the router.
    Io = 7,
    /// The agent is stopping, and admits no new job.
    Stopping = 8,
    /// The agent could not start the program, because the router had no memory, processes or file descriptors left.
    NotStarted = 9,
    /// The controller's key has been removed from the list since it connected.
    NotAuthorized = 10,
    /// There is no job with this id: it has ended, or the agent has restarted since.
    NoSuchJob = 11,
    /// The job belongs to another controller.
    NotYours = 12,
    /// A newer stream has taken the job over.
    TakenOver = 13,
    /// The agent has as many connections as it may. It answers every call on this one with this error, and closes it.
    TooManyConnections = 14,
    /// The program cannot run as the requested user: the user does not exist, or the agent is not root.
    NoSuchUser = 15,
    /// The router's kernel writes no core file, or none that the agent could find.
    NoCore = 16,
    /// The file system has too few inodes; `available` does not include the reserve.
    NoInodes = 17,
    /// The job has ended, and the router needed the memory of its output before a controller fetched it.
    OutputLost = 18,
    /// The router's kernel has reached its commit limit, although RAM is free (vm.overcommit_memory is 2). In bytes;
    /// `available` does not include the reserve. A controller that does not know this value treats it like any other
    /// refusal.
    NoPromise = 19,
    /// The job id that the controller chose already names another job.
    JobExists = 20,
    /// The controller sent nothing of a missing blob for a minute.
    UploadStalled = 21,
    /// The kernel provides no random numbers.
    NoRandom = 22,
    /// The job was cancelled before its program ran: its controller left, or sent a signal.
    Cancelled = 23,
}
impl ErrorReason {
    /// String value of the enum field names used in the ProtoBuf definition.
    ///
    /// The values are not transformed in any way and thus are considered stable
    /// (if the ProtoBuf definition does not change) and safe for programmatic use.
    pub fn as_str_name(&self) -> &'static str {
        match self {
            Self::Unspecified => "ERROR_REASON_UNSPECIFIED",
            Self::NoSpace => "ERROR_REASON_NO_SPACE",
            Self::NoMemory => "ERROR_REASON_NO_MEMORY",
            Self::TooManyJobs => "ERROR_REASON_TOO_MANY_JOBS",
            Self::NotExecutable => "ERROR_REASON_NOT_EXECUTABLE",
            Self::DigestMismatch => "ERROR_REASON_DIGEST_MISMATCH",
            Self::Protocol => "ERROR_REASON_PROTOCOL",
            Self::Io => "ERROR_REASON_IO",
            Self::Stopping => "ERROR_REASON_STOPPING",
            Self::NotStarted => "ERROR_REASON_NOT_STARTED",
            Self::NotAuthorized => "ERROR_REASON_NOT_AUTHORIZED",
            Self::NoSuchJob => "ERROR_REASON_NO_SUCH_JOB",
            Self::NotYours => "ERROR_REASON_NOT_YOURS",
            Self::TakenOver => "ERROR_REASON_TAKEN_OVER",
            Self::TooManyConnections => "ERROR_REASON_TOO_MANY_CONNECTIONS",
            Self::NoSuchUser => "ERROR_REASON_NO_SUCH_USER",
            Self::NoCore => "ERROR_REASON_NO_CORE",
            Self::NoInodes => "ERROR_REASON_NO_INODES",
            Self::OutputLost => "ERROR_REASON_OUTPUT_LOST",
            Self::NoPromise => "ERROR_REASON_NO_PROMISE",
            Self::JobExists => "ERROR_REASON_JOB_EXISTS",
            Self::UploadStalled => "ERROR_REASON_UPLOAD_STALLED",
            Self::NoRandom => "ERROR_REASON_NO_RANDOM",
            Self::Cancelled => "ERROR_REASON_CANCELLED",
        }
    }
    /// Creates an enum from field names used in the ProtoBuf definition.
    pub fn from_str_name(value: &str) -> ::core::option::Option<Self> {
        match value {
            "ERROR_REASON_UNSPECIFIED" => Some(Self::Unspecified),
            "ERROR_REASON_NO_SPACE" => Some(Self::NoSpace),
            "ERROR_REASON_NO_MEMORY" => Some(Self::NoMemory),
            "ERROR_REASON_TOO_MANY_JOBS" => Some(Self::TooManyJobs),
            "ERROR_REASON_NOT_EXECUTABLE" => Some(Self::NotExecutable),
            "ERROR_REASON_DIGEST_MISMATCH" => Some(Self::DigestMismatch),
            "ERROR_REASON_PROTOCOL" => Some(Self::Protocol),
            "ERROR_REASON_IO" => Some(Self::Io),
            "ERROR_REASON_STOPPING" => Some(Self::Stopping),
            "ERROR_REASON_NOT_STARTED" => Some(Self::NotStarted),
            "ERROR_REASON_NOT_AUTHORIZED" => Some(Self::NotAuthorized),
            "ERROR_REASON_NO_SUCH_JOB" => Some(Self::NoSuchJob),
            "ERROR_REASON_NOT_YOURS" => Some(Self::NotYours),
            "ERROR_REASON_TAKEN_OVER" => Some(Self::TakenOver),
            "ERROR_REASON_TOO_MANY_CONNECTIONS" => Some(Self::TooManyConnections),
            "ERROR_REASON_NO_SUCH_USER" => Some(Self::NoSuchUser),
            "ERROR_REASON_NO_CORE" => Some(Self::NoCore),
            "ERROR_REASON_NO_INODES" => Some(Self::NoInodes),
            "ERROR_REASON_OUTPUT_LOST" => Some(Self::OutputLost),
            "ERROR_REASON_NO_PROMISE" => Some(Self::NoPromise),
            "ERROR_REASON_JOB_EXISTS" => Some(Self::JobExists),
            "ERROR_REASON_UPLOAD_STALLED" => Some(Self::UploadStalled),
            "ERROR_REASON_NO_RANDOM" => Some(Self::NoRandom),
            "ERROR_REASON_CANCELLED" => Some(Self::Cancelled),
            _ => None,
        }
    }
}
/// Generated client implementations.
#[cfg(feature = "client")]
pub mod agent_service_client {
    #![allow(
        unused_variables,
        dead_code,
        missing_docs,
        clippy::wildcard_imports,
        clippy::let_unit_value,
    )]
    use tonic::codegen::*;
    use tonic::codegen::http::Uri;
    #[derive(Debug, Clone)]
    pub struct AgentServiceClient<T> {
        inner: tonic::client::Grpc<T>,
    }
    impl<T> AgentServiceClient<T>
    where
        T: tonic::client::GrpcService<tonic::body::Body>,
        T::Error: Into<StdError>,
        T::ResponseBody: Body<Data = Bytes> + std::marker::Send + 'static,
        <T::ResponseBody as Body>::Error: Into<StdError> + std::marker::Send,
    {
        pub fn new(inner: T) -> Self {
            let inner = tonic::client::Grpc::new(inner);
            Self { inner }
        }
        pub fn with_origin(inner: T, origin: Uri) -> Self {
            let inner = tonic::client::Grpc::with_origin(inner, origin);
            Self { inner }
        }
        pub fn with_interceptor<F>(
            inner: T,
            interceptor: F,
        ) -> AgentServiceClient<InterceptedService<T, F>>
        where
            F: tonic::service::Interceptor,
            T::ResponseBody: Default,
            T: tonic::codegen::Service<
                http::Request<tonic::body::Body>,
                Response = http::Response<
                    <T as tonic::client::GrpcService<tonic::body::Body>>::ResponseBody,
                >,
            >,
            <T as tonic::codegen::Service<
                http::Request<tonic::body::Body>,
            >>::Error: Into<StdError> + std::marker::Send + std::marker::Sync,
        {
            AgentServiceClient::new(InterceptedService::new(inner, interceptor))
        }
        /// Compress requests with the given encoding.
        ///
        /// This requires the server to support it otherwise it might respond with an
        /// error.
        #[must_use]
        pub fn send_compressed(mut self, encoding: CompressionEncoding) -> Self {
            self.inner = self.inner.send_compressed(encoding);
            self
        }
        /// Enable decompressing responses.
        #[must_use]
        pub fn accept_compressed(mut self, encoding: CompressionEncoding) -> Self {
            self.inner = self.inner.accept_compressed(encoding);
            self
        }
        /// Limits the maximum size of a decoded message.
        ///
        /// Default: `4MB`
        #[must_use]
        pub fn max_decoding_message_size(mut self, limit: usize) -> Self {
            self.inner = self.inner.max_decoding_message_size(limit);
            self
        }
        /// Limits the maximum size of an encoded message.
        ///
        /// Default: `usize::MAX`
        #[must_use]
        pub fn max_encoding_message_size(mut self, limit: usize) -> Self {
            self.inner = self.inner.max_encoding_message_size(limit);
            self
        }
        /// Describes the router and the agent's capabilities. Starts no job and changes nothing.
        pub async fn get_info(
            &mut self,
            request: impl tonic::IntoRequest<super::GetInfoRequest>,
        ) -> std::result::Result<
            tonic::Response<super::GetInfoResponse>,
            tonic::Status,
        > {
            self.inner
                .ready()
                .await
                .map_err(|e| {
                    tonic::Status::unknown(
                        format!("Service was not ready: {}", e.into()),
                    )
                })?;
            let codec = tonic_prost::ProstCodec::default();
            let path = http::uri::PathAndQuery::from_static(
                "/hop.v1.AgentService/GetInfo",
            );
            let mut req = request.into_request();
            req.extensions_mut()
                .insert(GrpcMethod::new("hop.v1.AgentService", "GetInfo"));
            self.inner.unary(req, path, codec).await
        }
        /// Runs one job, from its specification to its outcome. The first request is `spec`, or `attach` to reattach to a job
        /// in any state (capability "attach"). A job has one controller at a time: the agent ends an older stream of the same
        /// job with ERROR_REASON_TAKEN_OVER. A client that half-closes the stream has sent all of standard input. When the
        /// stream is reset or its connection breaks, the job runs on for `JobSpec.disconnect_timeout_ms`; the agent then kills
        /// it, unless a controller has attached.
        pub async fn run(
            &mut self,
            request: impl tonic::IntoStreamingRequest<Message = super::RunRequest>,
        ) -> std::result::Result<
            tonic::Response<tonic::codec::Streaming<super::RunResponse>>,
            tonic::Status,
        > {
            self.inner
                .ready()
                .await
                .map_err(|e| {
                    tonic::Status::unknown(
                        format!("Service was not ready: {}", e.into()),
                    )
                })?;
            let codec = tonic_prost::ProstCodec::default();
            let path = http::uri::PathAndQuery::from_static("/hop.v1.AgentService/Run");
            let mut req = request.into_streaming_request();
            req.extensions_mut().insert(GrpcMethod::new("hop.v1.AgentService", "Run"));
            self.inner.streaming(req, path, codec).await
        }
        /// Lists all jobs, including those of other controllers.
        pub async fn list_jobs(
            &mut self,
            request: impl tonic::IntoRequest<super::ListJobsRequest>,
        ) -> std::result::Result<
            tonic::Response<super::ListJobsResponse>,
            tonic::Status,
        > {
            self.inner
                .ready()
                .await
                .map_err(|e| {
                    tonic::Status::unknown(
                        format!("Service was not ready: {}", e.into()),
                    )
                })?;
            let codec = tonic_prost::ProstCodec::default();
            let path = http::uri::PathAndQuery::from_static(
                "/hop.v1.AgentService/ListJobs",
            );
            let mut req = request.into_request();
            req.extensions_mut()
                .insert(GrpcMethod::new("hop.v1.AgentService", "ListJobs"));
            self.inner.unary(req, path, codec).await
        }
        /// Returns the output of a job that the agent keeps, without attaching: that of a job with a log (`JobSpec.log_size`),
        /// or that which no controller has acknowledged yet. Only the job's own controller may call it.
        pub async fn read_output(
            &mut self,
            request: impl tonic::IntoRequest<super::ReadOutputRequest>,
        ) -> std::result::Result<
            tonic::Response<tonic::codec::Streaming<super::ReadOutputResponse>>,
            tonic::Status,
        > {
            self.inner
                .ready()
                .await
                .map_err(|e| {
                    tonic::Status::unknown(
                        format!("Service was not ready: {}", e.into()),
                    )
                })?;
            let codec = tonic_prost::ProstCodec::default();
            let path = http::uri::PathAndQuery::from_static(
                "/hop.v1.AgentService/ReadOutput",
            );
            let mut req = request.into_request();
            req.extensions_mut()
                .insert(GrpcMethod::new("hop.v1.AgentService", "ReadOutput"));
            self.inner.server_streaming(req, path, codec).await
        }
        /// Sends a signal to a job, as `Signal` does, without attaching. Only the job's own controller may call it.
        pub async fn signal_job(
            &mut self,
            request: impl tonic::IntoRequest<super::SignalJobRequest>,
        ) -> std::result::Result<
            tonic::Response<super::SignalJobResponse>,
            tonic::Status,
        > {
            self.inner
                .ready()
                .await
                .map_err(|e| {
                    tonic::Status::unknown(
                        format!("Service was not ready: {}", e.into()),
                    )
                })?;
            let codec = tonic_prost::ProstCodec::default();
            let path = http::uri::PathAndQuery::from_static(
                "/hop.v1.AgentService/SignalJob",
            );
            let mut req = request.into_request();
            req.extensions_mut()
                .insert(GrpcMethod::new("hop.v1.AgentService", "SignalJob"));
            self.inner.unary(req, path, codec).await
        }
        /// Authorizes the controller's next key, in addition to the key that this connection has proved. Does nothing if the
        /// list has that key already. Capability "rotate".
        pub async fn add_next_key(
            &mut self,
            request: impl tonic::IntoRequest<super::AddNextKeyRequest>,
        ) -> std::result::Result<
            tonic::Response<super::AddNextKeyResponse>,
            tonic::Status,
        > {
            self.inner
                .ready()
                .await
                .map_err(|e| {
                    tonic::Status::unknown(
                        format!("Service was not ready: {}", e.into()),
                    )
                })?;
            let codec = tonic_prost::ProstCodec::default();
            let path = http::uri::PathAndQuery::from_static(
                "/hop.v1.AgentService/AddNextKey",
            );
            let mut req = request.into_request();
            req.extensions_mut()
                .insert(GrpcMethod::new("hop.v1.AgentService", "AddNextKey"));
            self.inner.unary(req, path, codec).await
        }
        /// Removes from the list the key that AddNextKey authorized this connection's key to replace. The jobs of the removed
        /// key belong to this connection's key from then on. Does nothing if there is no such key. Capability "rotate".
        pub async fn retire_previous_key(
            &mut self,
            request: impl tonic::IntoRequest<super::RetirePreviousKeyRequest>,
        ) -> std::result::Result<
            tonic::Response<super::RetirePreviousKeyResponse>,
            tonic::Status,
        > {
            self.inner
                .ready()
                .await
                .map_err(|e| {
                    tonic::Status::unknown(
                        format!("Service was not ready: {}", e.into()),
                    )
                })?;
            let codec = tonic_prost::ProstCodec::default();
            let path = http::uri::PathAndQuery::from_static(
                "/hop.v1.AgentService/RetirePreviousKey",
            );
            let mut req = request.into_request();
            req.extensions_mut()
                .insert(GrpcMethod::new("hop.v1.AgentService", "RetirePreviousKey"));
            self.inner.unary(req, path, codec).await
        }
    }
}
