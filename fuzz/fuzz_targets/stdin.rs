//! Standard input, from the controller's requests into the program's pipe, against a model that only counts.
#![no_main]

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use hop_proto::limits::STDIN_WINDOW_BYTES;
use hopd::job::session::stdin::{Queue, feed};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::task::LocalSet;

#[derive(Arbitrary, Debug)]
enum Step {
    Push {
        place: Place,
        bytes: u32,
        end: bool,
    },
    Read {
        bytes: u16,
    },
    /// The program closes its input.
    Close,
    /// All other tasks run until they wait.
    Wait,
}

#[derive(Arbitrary, Debug)]
enum Place {
    Next,
    At(u64),
}

/// A pipe of one page, so that it is full soon (F_SETPIPE_SZ, fcntl(2)).
const PIPE_BYTES: usize = 4096;

/// More than any push that the queue accepts.
const MAX_PUSH: u32 = 2 * STDIN_WINDOW_BYTES;

#[derive(Default)]
struct Model {
    received: u64,
    ended: bool,
    read: u64,
}

/// The agent's last acknowledgement.
#[derive(Clone, Copy, Default)]
struct Event {
    offset: u64,
    closed: bool,
}

fuzz_target!(
    init: {
        // Like Rust's own `main`, which libFuzzer replaces.
        // SAFETY: no other thread exists yet, and no handler is set that could do something unsafe.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    },
    |steps: Vec<Step>| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let runtime = runtime.expect("there are file descriptors");
        let played = LocalSet::new().block_on(&runtime, play(steps));
        played.expect("pipes work");
    }
);

async fn play(steps: Vec<Step>) -> io::Result<()> {
    let (reader, writer) = io::pipe()?;
    rustix::pipe::fcntl_setpipe_size(&writer, PIPE_BYTES)?;
    let mut reader = Some(pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?);
    let queue = Queue::default();
    let told = Rc::new(Cell::new(Event::default()));
    let (all_ended, ended) = tokio::sync::oneshot::channel::<()>();
    let acknowledge = {
        let told = told.clone();
        move |offset, closed| {
            let before = told.replace(Event { offset, closed });
            assert!(!before.closed && before.offset <= offset, "said after the end, or backwards");
        }
    };
    let ended = async { _ = ended.await };
    let feeder = tokio::task::spawn_local(feed(writer.into(), queue.clone(), b"", acknowledge, ended));
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Push { place, bytes, end } => push(&queue, &mut model, told.get(), place, bytes, end),
            Step::Read { bytes } => {
                if let Some(reader) = &mut reader {
                    read(reader, &mut model, bytes.into()).await?;
                }
            }
            Step::Close => reader = None,
            Step::Wait => tokio::task::yield_now().await,
        }
        assert_eq!((queue.received(), queue.has_ended()), (model.received, model.ended));
        assert!((model.read..=model.received).contains(&told.get().offset));
    }
    if !model.ended {
        push(&queue, &mut model, told.get(), Place::Next, 0, true);
    }
    if let Some(mut reader) = reader {
        read(&mut reader, &mut model, u64::MAX).await?;
        assert_eq!(reader.read(&mut [0]).await?, 0, "nothing comes after the end");
        assert_eq!(told.get().offset, model.received);
    }
    drop(all_ended);
    assert_eq!(feeder.await??, Some(model.read), "what was read is known");
    Ok(())
}

fn push(queue: &Queue, model: &mut Model, told: Event, place: Place, bytes: u32, end: bool) {
    let offset = match place {
        Place::Next => model.received,
        Place::At(offset) => offset,
    };
    let count = u64::from(bytes % MAX_PUSH);
    let data: Vec<u8> = (model.received..model.received + count).map(byte_at).collect();
    let fits = told.closed || model.received + count - told.offset <= STDIN_WINDOW_BYTES.into();
    // Sending the end again changes nothing.
    let is_new = !model.ended || count == 0 && end;
    let is_good = is_new && offset == model.received && fits;
    assert_eq!(queue.push(offset, &data, end).is_ok(), is_good, "{count} bytes from {offset}");
    if is_good {
        model.received += count;
        model.ended |= end;
    }
}

/// Reads this many bytes, or as many as there are. If they arrive at all, no task waits in vain.
async fn read(reader: &mut pipe::Receiver, model: &mut Model, bytes: u64) -> io::Result<()> {
    let mut data = vec![0; bytes.min(model.received - model.read) as usize];
    reader.read_exact(&mut data).await?;
    for byte in data {
        assert_eq!(byte, byte_at(model.read));
        model.read += 1;
    }
    Ok(())
}

/// 251 is a prime: no page and no buffer begins like another.
fn byte_at(offset: u64) -> u8 {
    (offset % 251) as u8
}
