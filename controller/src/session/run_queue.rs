//! The run queue of a router: programs that one user starts at once, as `go test ./...` does, run one after the other, or as many
//! at a time as the router's memory admits; the next one is uploaded meanwhile.
//!
//! A slot is a lock on a file of this machine (flock(2)), which the kernel releases however its process ends.
//!
//! **Invariants:** at most one program is being uploaded or waits on the router, so that waiting takes the memory of one.

use std::fs::File;
use std::path::{Path, PathBuf};

use hop_proto::v1::GetInfoResponse;

use super::Error;
use crate::config::file_lock::{self, POLL_INTERVAL};
use crate::config::home::{Home, make_private};

/// Bytes of a router's memory for each program that runs: what a test of the standard library and its input files take, with
/// what is left to the garbage collector. Below that, they run one by one.
const BYTES_PER_SLOT: u64 = 64 << 20;

/// A waiting program may take one part in this many of a router's memory.
const WAITING_FRACTION: u64 = 6;

/// A place in the queue of a router.
#[derive(Debug)]
pub struct RunSlot {
    directory: PathBuf,
    /// How many may run at a time.
    capacity: u64,
    /// Held while the program is uploaded, so that no other one is.
    next: Option<File>,
    /// Held while the program runs.
    running: Option<File>,
}

impl RunSlot {
    /// Waits until this is the next program for `router`.
    ///
    /// # Errors
    /// [`Error::Io`] if the locks cannot be made.
    pub async fn enqueue(home: &Home, router: &str) -> Result<Self, Error> {
        let directory = home.cache().join("turns").join(router);
        make_private(&directory)?;
        let next = directory.join("next");
        let next = loop {
            if let Some(lock) = try_lock(&next)? {
                break lock;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        };
        Ok(Self { directory, capacity: 1, next: Some(next), running: None })
    }

    /// Derives the capacity from the router's available memory and the agent's limit of jobs. Returns how many programs
    /// may run.
    pub fn set_capacity(&mut self, available: u64, most: u32) -> u64 {
        self.capacity = (available / BYTES_PER_SLOT).clamp(1, u64::from(most.max(1)));
        self.capacity
    }

    /// Whether the program, which takes `room` bytes on the router, may wait there for its slot: the program that runs
    /// has half of the spare memory reserved (see `wait_for_start` in agent.proto), and this one must fit into the
    /// rest.
    pub fn may_wait_on_router(&self, room: u64, info: &GetInfoResponse) -> bool {
        let memory = info.memory.unwrap_or_default();
        room <= memory.total.saturating_sub(memory.reserve) / WAITING_FRACTION
    }

    /// Waits until the program may run. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Io`] if the locks cannot be made.
    pub async fn acquire(&mut self) -> Result<(), Error> {
        while self.running.is_none() {
            for number in 0..self.capacity {
                self.running = try_lock(&self.directory.join(number.to_string()))?;
                if self.running.is_some() {
                    // Others may be sent now.
                    self.next = None;
                    return Ok(());
                }
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// True when the program may run.
    pub fn is_acquired(&self) -> bool {
        self.running.is_some()
    }
}

fn try_lock(path: &Path) -> Result<Option<File>, Error> {
    file_lock::take(path).map_err(Error::io("lock", path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn is_ready(future: impl Future<Output = Result<(), Error>>) -> bool {
        let mut future = std::pin::pin!(future);
        matches!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())))
    }

    #[tokio::test(start_paused = true)]
    async fn one_program_runs_while_next_waits() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        let mut first = RunSlot::enqueue(&home, "desk").await.unwrap();
        assert_eq!(first.set_capacity(40 << 20, 8), 1);
        first.acquire().await.unwrap();
        let mut second = RunSlot::enqueue(&home, "desk").await.unwrap();
        assert!(!is_ready(second.acquire()) && !second.is_acquired());
        assert!(!is_ready(async { RunSlot::enqueue(&home, "desk").await.map(drop) }), "there is a next one");
        let mut elsewhere = RunSlot::enqueue(&home, "roof").await.unwrap();
        elsewhere.acquire().await.unwrap();
        drop(first);
        second.acquire().await.unwrap();
        RunSlot::enqueue(&home, "desk").await.unwrap();
    }

    #[tokio::test]
    async fn large_router_runs_several_programs() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        let mut running = Vec::new();
        for number in 0..3 {
            let mut slot = RunSlot::enqueue(&home, "desk").await.unwrap();
            assert_eq!(slot.set_capacity(190 << 20, 8), 2);
            assert_eq!(is_ready(slot.acquire()), number < 2);
            running.push(slot);
        }
    }
}
