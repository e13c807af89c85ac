#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct GetInfoRequest {}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct GetInfoResponse {
    /// Version of the agent, for people. Decisions are made by `capabilities` alone.
    #[prost(string, tag = "1")]
    pub agent_version: ::prost::alloc::string::String,
    /// Named features of this agent; docs/protocol.md lists them. Unknown names are ignored.
    #[prost(string, repeated, tag = "2")]
    pub capabilities: ::prost::alloc::vec::Vec<::prost::alloc::string::String>,
    /// What a program must be to run here.
    #[prost(message, optional, tag = "3")]
    pub target: ::core::option::Option<Target>,
    /// Facts for people, empty where the router does not tell.
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
    /// Jobs that run now, and how many may run at once.
    #[prost(uint32, tag = "13")]
    pub jobs: u32,
    #[prost(uint32, tag = "14")]
    pub max_jobs: u32,
    /// What the agent ends with a job.
    #[prost(enumeration = "Containment", tag = "15")]
    pub containment: i32,
    /// Changes with every start of the agent, as long as `boot_id` is the same.
    #[prost(uint64, tag = "16")]
    pub agent_instance_id: u64,
    /// Where the agent listens, for people.
    #[prost(string, tag = "24")]
    pub listens: ::prost::alloc::string::String,
}
/// The identity of an executable in the words of its ELF header (elf(5)).
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
    /// Bytes that can be had without harm to what runs now: by RAM down to the kernel's lowest watermark (vm.min_free_kbytes), or
    /// by what the kernel still promises, whichever is less.
    #[prost(uint64, tag = "2")]
    pub available: u64,
    /// Bytes that the agent never gives to a program.
    #[prost(uint64, tag = "3")]
    pub reserve: u64,
    /// `available` is what the kernel still promises (vm.overcommit_memory is 2: CommitLimit - Committed_AS, less what Go maps at
    /// a time), and RAM is there for more.
    #[prost(bool, tag = "4")]
    pub bound_by_promises: bool,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Store {
    /// Where programs are kept and run from.
    #[prost(string, tag = "1")]
    pub directory: ::prost::alloc::string::String,
    /// Bytes that the next program may have, by the file system and by the agent's quota.
    #[prost(uint64, tag = "2")]
    pub free: u64,
    /// False where the file system is mounted noexec: nothing can run.
    #[prost(bool, tag = "3")]
    pub executable: bool,
    /// Bytes of blobs that no job uses. They count as free: they go when their room is needed.
    #[prost(uint64, tag = "4")]
    pub reclaimable: u64,
    /// Absent where the file system sets no limit to the number of files. Capability "inodes".
    #[prost(message, optional, tag = "5")]
    pub inodes: ::core::option::Option<Inodes>,
}
/// How many files the file system can have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Inodes {
    #[prost(uint64, tag = "1")]
    pub total: u64,
    #[prost(uint64, tag = "2")]
    pub available: u64,
    /// What is never given to a job that is to begin.
    #[prost(uint64, tag = "3")]
    pub reserve: u64,
}
/// From the controller. The first message is `spec` or `attach`, and it is the only one of these. To half-close the stream is to
/// end standard input, as a `Stdin` with `end` does; the agent goes on sending.
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
        /// The terminal's window has another size.
        #[prost(message, tag = "6")]
        WindowSize(super::WindowSize),
        /// The controller has stored all that is before this position. The agent sends at most `JobSpec.output_window` bytes beyond
        /// it, and keeps the output files until it is at the end of all.
        #[prost(message, tag = "11")]
        FileAck(super::FilePosition),
        /// A job with `JobSpec.wait_for_start` may start. Said again, and of a job that runs, it says nothing.
        #[prost(message, tag = "9")]
        Start(super::Start),
    }
}
/// From the agent: `accepted`, then `started`, then any number of `output`, `stdin_ack` and `signal_ack`, then the output files, then
/// exactly one `outcome`, which comes after the last byte of output and when the last output file was acknowledged.
/// `outcome` may follow `accepted` at once if the program cannot be executed.
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
    /// File name of the program on the router, 1 to 64 bytes without '/' and control characters: what `ps` shows and the end of
    /// argv\[0\].
    #[prost(string, tag = "1")]
    pub name: ::prost::alloc::string::String,
    #[prost(message, optional, tag = "2")]
    pub program: ::core::option::Option<Blob>,
    /// argv\[1\] and on. No element may hold a zero byte.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub args: ::prost::alloc::vec::Vec<::prost::alloc::vec::Vec<u8>>,
    /// Added to the environment that the agent gives to every program (PATH, HOME, TMPDIR); the last one of a name wins.
    #[prost(message, repeated, tag = "4")]
    pub env: ::prost::alloc::vec::Vec<EnvVar>,
    #[prost(message, optional, tag = "5")]
    pub limits: ::core::option::Option<Limits>,
    /// The agent sends at most this many bytes of each output beyond what was acknowledged. 1 to 1,048,576.
    #[prost(uint32, tag = "6")]
    pub output_window: u32,
    /// Files that the program finds when it starts, at most 4 trees. Capability "inputs".
    #[prost(message, repeated, tag = "7")]
    pub inputs: ::prost::alloc::vec::Vec<InputArchive>,
    /// Where the program starts, below the job's directory: a path by the rules of `output_files`, without '*' and '?', of a
    /// directory that is in a tree. Empty: in the job's directory itself. Capability "inputs".
    #[prost(bytes = "vec", tag = "9")]
    pub working_directory: ::prost::alloc::vec::Vec<u8>,
    /// Wherever these bytes, 16 to 64 of them, stand in an argument or in the value of a variable, the program gets the absolute
    /// path of the job's directory. Empty: nowhere. Capability "inputs".
    #[prost(bytes = "vec", tag = "18")]
    pub workdir_placeholder: ::prost::alloc::vec::Vec<u8>,
    /// The program waits for `Start` when it and its input files are there, and leaves half of the memory that is to spare to
    /// the next one, which waits while it runs. Capability "wait_for_start".
    #[prost(bool, tag = "19")]
    pub wait_for_start: bool,
    /// Standard error goes into the pipe of standard output, so that what is written first comes first. Capability "merge_stderr".
    #[prost(bool, tag = "20")]
    pub merge_stderr: bool,
    /// What to bring back when the program has ended: paths below the job's directory, at most 64 of at most 1,024 bytes. Each is one or more names with a '/' between two, none of them "." or ".."; or "." alone, which is all
    /// that is there. In a name, '*' stands for any bytes and '?' for one, but not for a '.' at the beginning of a name. Of a
    /// directory, everything below it is brought, except names that begin with '.' (FILE_PROBLEM_HIDDEN). `.git`, in either
    /// case, is never brought.
    /// Capability "outputs".
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub output_files: ::prost::alloc::vec::Vec<::prost::alloc::vec::Vec<u8>>,
    /// If a signal ends the program, the kernel writes a core file, which is the last of the output files. Capability "core".
    #[prost(bool, tag = "16")]
    pub core: bool,
    /// The program gets a terminal of this size instead of its three pipes; all that it writes is standard output.
    #[prost(message, optional, tag = "10")]
    pub terminal: ::core::option::Option<WindowSize>,
    /// Names the job on this agent: 1 to 32 digits and lower-case letters. The controller chooses it, at random, so that it
    /// can attach to a job of which it has not heard yet. To ask for a job that it has already is to attach to it. Empty:
    /// the agent chooses.
    #[prost(string, tag = "11")]
    pub job_id: ::prost::alloc::string::String,
    /// How long the job goes on without a controller, in milliseconds, and how long its outcome is kept. 0: it ends with its
    /// connection. At most 86,400,000.
    #[prost(uint64, tag = "12")]
    pub disconnect_timeout_ms: u64,
    /// Nice value of the program, 0 to 19 (setpriority(2)).
    #[prost(uint32, tag = "14")]
    pub nice: u32,
    /// The user that the program runs as: a name, UID or UID:GID of the router. It can gain no rights then (prctl(2),
    /// PR_SET_NO_NEW_PRIVS). Empty: as the agent. Capability "user".
    #[prost(string, tag = "15")]
    pub user: ::prost::alloc::string::String,
    /// The job goes on without a controller until it ends by itself; its standard input is empty. Its outcome is kept until
    /// a controller has it, or eight jobs have ended since.
    #[prost(bool, tag = "13")]
    pub detached: bool,
    /// Digests of blobs that the controller has at hand, 32 bytes each, the one that resembles the program most first; at most
    /// 16. It can send the program as a delta against one of them. Capability "delta".
    #[prost(bytes = "vec", repeated, tag = "17")]
    pub bases: ::prost::alloc::vec::Vec<::prost::alloc::vec::Vec<u8>>,
    /// The controller decompresses `Output.data` and `OutputFile.data`, so they may come compressed on this stream. Capability "compress_output".
    #[prost(bool, tag = "21")]
    pub accept_compressed_output: bool,
}
/// In characters, each at most 65,535.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct WindowSize {
    #[prost(uint32, tag = "1")]
    pub rows: u32,
    #[prost(uint32, tag = "2")]
    pub columns: u32,
}
/// Where the controller stands.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Attach {
    #[prost(string, tag = "1")]
    pub job_id: ::prost::alloc::string::String,
    /// The controller has all output before these offsets. Absent: it has none and wants all that is kept, which is what no
    /// controller has acknowledged.
    #[prost(uint64, optional, tag = "2")]
    pub stdout_offset: ::core::option::Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    pub stderr_offset: ::core::option::Option<u64>,
    /// The same of the output files. Absent: from the beginning of the first file that is not acknowledged whole.
    #[prost(message, optional, tag = "4")]
    pub files: ::core::option::Option<FilePosition>,
    /// As `JobSpec.accept_compressed_output`, for this stream: another controller may have asked for the job.
    #[prost(bool, tag = "5")]
    pub accept_compressed_output: bool,
}
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Start {}
/// The controller wants nothing more of the job, and the agent ends the stream. A job that has not ended yet is killed, as if its
/// time to linger were over; of one that has, the agent keeps the outcome and the output until this is said or that time is over.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Discard {}
/// The controller leaves the job, as if its connection had broken, and the agent ends the stream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Detach {}
/// A file, named by what is in it.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Blob {
    /// SHA-256 of the content: 32 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub sha256: ::prost::alloc::vec::Vec<u8>,
    /// Length in bytes. The agent decides by it whether the blob fits, before any content is sent.
    #[prost(uint64, tag = "2")]
    pub size: u64,
    /// XXH32 of the content with seed 0 (xxHash specification). An agent with the capability "checksum" compares it with what
    /// it has decoded, and takes the digest, which costs such a CPU thirty times as much, when another controller asks for the
    /// blob. Absent: it takes the digest at once.
    #[prost(fixed32, optional, tag = "3")]
    pub checksum: ::core::option::Option<u32>,
}
/// Files, as a cpio archive in the format "newc", without checksums (cpio(5)): directories before what is in them, then regular
/// files, then symbolic links; nothing else, and no name twice. Names are paths by the rules of `JobSpec.output_files`. Of a
/// mode, the agent takes the kind of file and whether its owner may execute it.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct InputArchive {
    #[prost(message, optional, tag = "1")]
    pub archive: ::core::option::Option<Blob>,
    /// The name of the directory below the job's directory that the files are unpacked into. A name of its own for each tree.
    #[prost(bytes = "vec", tag = "2")]
    pub directory: ::prost::alloc::vec::Vec<u8>,
    /// Bytes of memory that the files take there: the length of each, up to the next multiple of 4,096, and 1,024 for each of
    /// them, for each directory and each link. The agent decides by it whether they fit.
    #[prost(uint64, tag = "3")]
    pub size: u64,
    /// As `JobSpec.bases`, for the archive.
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub bases: ::prost::alloc::vec::Vec<::prost::alloc::vec::Vec<u8>>,
    /// How many entries the archive has, and one for the directory. The agent decides by it whether the file system can have so
    /// many, and unpacks no more. 0 of a controller that does not count them.
    #[prost(uint32, tag = "5")]
    pub entries: u32,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct EnvVar {
    /// Not empty, without '=' and zero bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub name: ::prost::alloc::vec::Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub value: ::prost::alloc::vec::Vec<u8>,
}
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Limits {
    /// The job is ended when it has run this long, in milliseconds. 0: no limit.
    #[prost(uint64, tag = "1")]
    pub timeout_ms: u64,
    /// Time between TERM and KILL when the agent ends a job, in milliseconds. 0: KILL at once. At most 60,000.
    #[prost(uint64, tag = "2")]
    pub grace_ms: u64,
    /// The job is ended when it has written nothing for this long, in milliseconds. 0: no limit.
    #[prost(uint64, tag = "3")]
    pub idle_timeout_ms: u64,
}
/// The job has an id and its room in memory. The controller now sends every blob in `missing_blobs`, in order, and nothing else.
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Accepted {
    /// Names the job on this agent, unique since the router booted.
    #[prost(string, tag = "1")]
    pub job_id: ::prost::alloc::string::String,
    #[prost(message, repeated, tag = "2")]
    pub missing_blobs: ::prost::alloc::vec::Vec<MissingBlob>,
    /// After `attach`: where the next byte of each stream belongs. The controller sends its input from here on, and the
    /// agent its outputs.
    #[prost(uint64, tag = "3")]
    pub stdin_offset: u64,
    #[prost(uint64, tag = "4")]
    pub stdout_offset: u64,
    #[prost(uint64, tag = "5")]
    pub stderr_offset: u64,
    /// Numbered signals that the agent has. The controller numbers the next one from here on, and sends none of these again.
    #[prost(uint64, tag = "6")]
    pub signals: u64,
}
/// A blob that the agent does not have, or not whole.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct MissingBlob {
    #[prost(bytes = "vec", tag = "1")]
    pub sha256: ::prost::alloc::vec::Vec<u8>,
    /// Send from here on: bytes of the blob as it is sent, in the encoding in which it was begun.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// The first of `JobSpec.bases` that the agent has, if it has one and room for both. The blob may be a delta against it.
    #[prost(bytes = "vec", tag = "3")]
    pub base: ::prost::alloc::vec::Vec<u8>,
}
/// A piece of the blob that is first in `missing_blobs` and not yet complete. It is complete when its declared size is reached.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct BlobChunk {
    /// Counts bytes as they are sent.
    #[prost(uint64, tag = "1")]
    pub offset: u64,
    /// At most 1,048,576 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub data: ::prost::bytes::Bytes,
    /// How the blob is written. Said with its first byte; nothing in the chunks that follow.
    #[prost(enumeration = "Encoding", tag = "3")]
    pub encoding: i32,
}
/// The program runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Started {
    /// The controller sends at most this many bytes of standard input beyond what was acknowledged. 1 to 1,048,576.
    #[prost(uint32, tag = "1")]
    pub stdin_window: u32,
    /// It has a terminal, which `JobSpec.terminal` asked for.
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
    /// The program's pipe has taken all bytes before this offset.
    #[prost(uint64, tag = "1")]
    pub offset: u64,
    /// The program does not read any more: send nothing further.
    #[prost(bool, tag = "2")]
    pub closed: bool,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Output {
    #[prost(enumeration = "Stream", tag = "1")]
    pub stream: i32,
    /// Of its first byte, uncompressed.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// At most 16,384 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub data: ::prost::bytes::Bytes,
    /// If not 0, `data` is compressed: one block (LZ4 Block Format Description) that decompresses to so many bytes, at most 16,384. Only
    /// where it was asked for.
    #[prost(uint32, tag = "4")]
    pub uncompressed_size: u32,
}
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct OutputAck {
    #[prost(enumeration = "Stream", tag = "1")]
    pub stream: i32,
    /// The controller has passed on all bytes before this offset.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// Nobody reads this output any more: the agent closes the program's pipe, as a shell's pipeline would.
    #[prost(bool, tag = "3")]
    pub closed: bool,
}
/// A place in the output files of a job: everything before it is in files before `file`, or in that one before `offset`. The
/// end of all is the number of files, and 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct FilePosition {
    #[prost(uint32, tag = "1")]
    pub file: u32,
    #[prost(uint64, tag = "2")]
    pub offset: u64,
}
/// A piece of an output file. Files come one after the other when the program has ended, each as it is then or not at all.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct OutputFile {
    /// Counts the job's output files from 0.
    #[prost(uint32, tag = "1")]
    pub file: u32,
    /// Where `data` belongs in it. What is left out between two pieces, or behind the last one, is zeros: a hole.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// At most 16,384 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub data: ::prost::bytes::Bytes,
    /// In the first piece of each file on each stream.
    #[prost(message, optional, tag = "4")]
    pub info: ::core::option::Option<FileInfo>,
    /// Nothing more of this file comes, and what came of it is not the file.
    #[prost(enumeration = "FileProblem", tag = "5")]
    pub problem: i32,
    /// As `Output.uncompressed_size`.
    #[prost(uint32, tag = "6")]
    pub uncompressed_size: u32,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct FileInfo {
    /// Where it is below the directory in which the program started. If nothing was found: what was asked for.
    #[prost(bytes = "vec", tag = "1")]
    pub path: ::prost::alloc::vec::Vec<u8>,
    /// Which element of `JobSpec.output_files` it is for. Of a core it says nothing.
    #[prost(uint32, tag = "2")]
    pub request: u32,
    /// Length in bytes.
    #[prost(uint64, tag = "3")]
    pub size: u64,
    /// Its owner may execute it.
    #[prost(bool, tag = "4")]
    pub executable: bool,
    /// It is the core.
    #[prost(bool, tag = "5")]
    pub core: bool,
    /// How many files there are in all, those with a problem included: the same in each.
    #[prost(uint32, tag = "6")]
    pub files: u32,
}
/// To every process in the job's process group.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Signal {
    /// Name without SIG: "INT" (RFC 4254, section 6.9).
    #[prost(string, tag = "1")]
    pub name: ::prost::alloc::string::String,
    /// Counts the signals of a job from 1, without a gap. One whose number the agent has already says nothing, so that what a
    /// broken connection may have lost can be said again. 0: not counted, and not acknowledged. Capability "signals".
    #[prost(uint64, tag = "2")]
    pub number: u64,
}
/// The agent has the signals up to this number, and the program gets each of them once, if it has not ended before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct SignalAck {
    #[prost(uint64, tag = "1")]
    pub number: u64,
}
/// How the job ended. Says nothing of Hop's own health: if Hop fails, there is a gRPC status and no outcome.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Outcome {
    #[prost(enumeration = "Cause", tag = "4")]
    pub cause: i32,
    #[prost(message, optional, tag = "5")]
    pub usage: ::core::option::Option<Usage>,
    /// All the bytes that the program wrote, which the controller has by now.
    #[prost(uint64, tag = "6")]
    pub stdout_bytes: u64,
    #[prost(uint64, tag = "7")]
    pub stderr_bytes: u64,
    /// A process that left the job's group still held an output open; what it writes from now on is lost.
    #[prost(bool, tag = "8")]
    pub output_abandoned: bool,
    /// Processes that the program had left behind, and that were ended with it.
    #[prost(uint32, tag = "9")]
    pub orphans: u32,
    /// With CAUSE_MEMORY: the figures.
    #[prost(message, optional, tag = "10")]
    pub out_of_memory: ::core::option::Option<OutOfMemory>,
    /// Output files were asked for and were given up before they were fetched, for this cause: CAUSE_MEMORY, because the
    /// router needed the memory that they took; CAUSE_EXHAUSTED, because it needed their inodes; CAUSE_AGENT_STOPPED.
    #[prost(enumeration = "Cause", tag = "11")]
    pub files_lost: i32,
    /// With CAUSE_EXHAUSTED: what, and the figures.
    #[prost(message, optional, tag = "12")]
    pub exhausted: ::core::option::Option<Exhausted>,
    /// Bytes of standard input that were read, by the program and those that it started: what its pipe has taken without what was
    /// still in there when they had ended. Absent: not known, as with a terminal.
    #[prost(uint64, optional, tag = "13")]
    pub stdin_bytes: ::core::option::Option<u64>,
    #[prost(oneof = "outcome::Ending", tags = "1, 2, 3")]
    pub ending: ::core::option::Option<outcome::Ending>,
}
/// Nested message and enum types in `Outcome`.
pub mod outcome {
    #[derive(Clone, PartialEq, Eq, Hash, ::prost::Oneof)]
    pub enum Ending {
        /// The program called exit. 0 to 255.
        #[prost(int32, tag = "1")]
        ExitCode(i32),
        /// A signal ended the program.
        #[prost(message, tag = "2")]
        Signaled(super::Signaled),
        /// The kernel refused to execute the program.
        #[prost(message, tag = "3")]
        NotExecuted(super::NotExecuted),
    }
}
/// Something that the router's own daemons need as well.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Exhausted {
    #[prost(enumeration = "Resource", tag = "1")]
    pub resource: i32,
    /// How many were left when the job was ended.
    #[prost(uint64, tag = "2")]
    pub available: u64,
    /// Below how many a job is ended.
    #[prost(uint64, tag = "3")]
    pub limit: u64,
    /// How many the job held.
    #[prost(uint64, tag = "4")]
    pub held: u64,
    /// Of inodes: where the file system is mounted, for people.
    #[prost(string, tag = "5")]
    pub place: ::prost::alloc::string::String,
}
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct OutOfMemory {
    /// Bytes that were available on the router when the job was ended.
    #[prost(uint64, tag = "1")]
    pub available: u64,
    /// Bytes below which a job is ended.
    #[prost(uint64, tag = "2")]
    pub limit: u64,
    /// Bytes that the job held: its processes and the files that it wrote. 0 if the kernel was first to end it.
    #[prost(uint64, tag = "3")]
    pub held: u64,
    /// What was short was not RAM: the kernel promises no more (vm.overcommit_memory is 2).
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
    /// The kernel's reason, for people.
    #[prost(string, tag = "1")]
    pub reason: ::prost::alloc::string::String,
}
/// What the program and those of its children that it waited for used (getrusage(2)).
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
    /// The oldest first.
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
    /// Milliseconds since the job was admitted.
    #[prost(uint64, tag = "4")]
    pub age_ms: u64,
    /// A controller is connected to it.
    #[prost(bool, tag = "5")]
    pub attached: bool,
    /// It is the asking controller's own.
    #[prost(bool, tag = "6")]
    pub own: bool,
    #[prost(bool, tag = "7")]
    pub detached: bool,
    /// Bytes of output that no controller has acknowledged.
    #[prost(uint64, tag = "8")]
    pub unread: u64,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct ReadOutputRequest {
    #[prost(string, tag = "1")]
    pub job_id: ::prost::alloc::string::String,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct ReadOutputResponse {
    #[prost(message, optional, tag = "1")]
    pub output: ::core::option::Option<Output>,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct SignalJobRequest {
    #[prost(string, tag = "1")]
    pub job_id: ::prost::alloc::string::String,
    /// Name without SIG.
    #[prost(string, tag = "2")]
    pub signal: ::prost::alloc::string::String,
}
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct SignalJobResponse {}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct AddNextKeyRequest {
    /// SHA-256 of the next key's SubjectPublicKeyInfo: 32 bytes, its fingerprint.
    #[prost(bytes = "vec", tag = "1")]
    pub sha256: ::prost::alloc::vec::Vec<u8>,
}
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct AddNextKeyResponse {}
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct RetirePreviousKeyRequest {}
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct RetirePreviousKeyResponse {}
/// Why the agent refused a call or a job. Packed as google.protobuf.Any (type URL type.googleapis.com/hop.v1.ErrorDetail) into the
/// `details` of the google.rpc.Status in the trailer grpc-status-details-bin, in every status that the agent itself makes. Beside it
/// stands a google.rpc.ErrorInfo that says the same to clients that do not know this file: `reason` is the value of `reason`
/// without its prefix ("NO_SPACE"), `domain` is "hop.v1", and `metadata` has "needed" and "available" where they mean something.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct ErrorDetail {
    #[prost(enumeration = "ErrorReason", tag = "1")]
    pub reason: i32,
    /// For NO_SPACE, NO_MEMORY, NO_INODES, NO_PROMISE, TOO_MANY_JOBS, TOO_MANY_CONNECTIONS: what was asked and what there is.
    #[prost(uint64, tag = "2")]
    pub needed: u64,
    #[prost(uint64, tag = "3")]
    pub available: u64,
}
/// How far a program can get from the agent that ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub enum Containment {
    Unspecified = 0,
    /// What leaves the program's process group is reported and not ended.
    Group = 1,
    /// Everything that the program started is ended, in whatever group and session it is.
    Descendants = 2,
    /// As DESCENDANTS, by a cgroup of the kernel's: however fast the program forks, and after the agent was killed, too.
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
/// docs/protocol.md describes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub enum Encoding {
    /// In every chunk but the first.
    Unspecified = 0,
    /// As it is.
    Identity = 5,
    /// One zstd frame with a window of at most 512 KiB (RFC 8878). Capability "zstd".
    Zstd = 1,
    /// One LZ4 frame of 64 KiB blocks, without checksums (LZ4 Frame Format Description). Capability "lz4".
    Lz4 = 2,
    /// What to do with `MissingBlob.base` to get the blob, in zstd as above. Capability "delta".
    Delta = 3,
    /// The same, where addresses in what is copied follow what they name; what has moved comes first. Capability "relocate".
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
    /// There is no such file.
    NotThere = 1,
    /// It is a symbolic link, a device, a pipe or a socket; or on another file system than the program's directory.
    NotAFile = 2,
    /// With it, the output files of the job would be longer than 256 MiB.
    TooLarge = 3,
    /// There are more than 1,024 files, or 64 KiB of paths, or 4,096 names to look at. Of a path with more than 32 names, or
    /// longer than 1,024 bytes: this directory or file is too deep, and the others come.
    TooMany = 4,
    /// The kernel does not let it be read.
    Unreadable = 5,
    /// It is not as it was when the program ended.
    Changed = 6,
    /// The program ran as another user than the agent, whose file this is not.
    NotOwn = 7,
    /// Its name begins with '.', and it was found in a directory: such files are brought only by their names.
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
    /// Inodes of the file system that jobs work on.
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
    /// The program ended by itself or by a signal that Hop only passed on.
    Program = 1,
    /// `Limits.timeout_ms` was over.
    Timeout = 2,
    /// The agent was told to stop (SIGTERM).
    AgentStopped = 3,
    /// `Limits.idle_timeout_ms` was over.
    IdleTimeout = 4,
    /// The router was about to run out of memory, and this job held most of it.
    Memory = 5,
    /// No controller was there for longer than `JobSpec.disconnect_timeout_ms`.
    Abandoned = 6,
    /// The router was about to run out of something else than memory, and this job held most of it.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub enum JobState {
    Unspecified = 0,
    /// Its program is on its way.
    Receiving = 1,
    Running = 2,
    /// Its outcome waits for a controller.
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
    /// The program does not fit into memory. In bytes, the reserve already taken off `available`.
    NoMemory = 2,
    /// All places for jobs are taken.
    TooManyJobs = 3,
    /// The store is mounted noexec.
    NotExecutable = 4,
    /// The content of a blob does not have the digest that names it.
    DigestMismatch = 5,
    /// The controller broke the rules of this file.
    Protocol = 6,
    /// A file operation failed on the router.
    Io = 7,
    /// The agent is ending and takes no new job.
    Stopping = 8,
    /// The program could not be started for want of memory, processes or file descriptors.
    NotStarted = 9,
    /// The controller's key was taken off the list since it connected.
    NotAuthorized = 10,
    /// There is no job of this id: it has ended, or the agent was started since.
    NoSuchJob = 11,
    /// The job is another controller's.
    NotYours = 12,
    /// The job has another stream now.
    TakenOver = 13,
    /// All places for connections are taken. Every call on this one is answered so, and the agent closes it.
    TooManyConnections = 14,
    /// The program cannot run as that user: there is none, or the agent is not root.
    NoSuchUser = 15,
    /// The router's kernel writes no core file that the agent could find.
    NoCore = 16,
    /// The file system cannot have so many files more, the reserve already taken off `available`.
    NoInodes = 17,
    /// The job has ended, and the router needed the memory of its output before somebody came for it.
    OutputLost = 18,
    /// The router's kernel promises no more memory, though RAM is free (vm.overcommit_memory is 2). In bytes, the reserve already
    /// taken off `available`. To a controller that does not know it, a refusal like any other.
    NoPromise = 19,
    /// The job id that the controller chose names another job.
    JobExists = 20,
    /// Nothing of a blob that is missing came for a minute.
    UploadStalled = 21,
    /// The kernel gives no random numbers.
    NoRandom = 22,
    /// The job was given up before its program ran: its controller went away, or sent a signal.
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
        /// What the router is and what this agent can do. Starts no job and changes nothing.
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
        /// One job, from its specification to its outcome. The first request is `spec`; or `attach`, to come back to a job, wherever it
        /// stands (capability "attach"). A job has one controller at a time: an older stream of the same job ends with
        /// ERROR_REASON_TAKEN_OVER. A client that half-closes the stream has
        /// sent all of standard input. When the stream is reset or its connection breaks, the job goes on for `JobSpec.disconnect_timeout_ms`,
        /// and is killed unless a controller attaches.
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
        /// The jobs that there are, those of other controllers included.
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
        /// The output of a job that nobody has acknowledged, as it is now, without attaching. Only its own controller may.
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
        /// Sends a signal to a job, as `Signal` does, without attaching. Only its own controller may.
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
        /// Lets the controller's next key in, beside the one that this connection has proved. Nothing happens if it is on the
        /// list already. Capability "rotate".
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
        /// Takes the key off the list that the one of this connection was let in to replace by AddNextKey. The jobs of that key
        /// are this one's from then on. Nothing happens if there is none. Capability "rotate".
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
