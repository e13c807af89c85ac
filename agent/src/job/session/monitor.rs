//! A value that tasks look at, and that wakes those which wait when it changes.
//!
//! What tokio's `watch` is, for what happens with each line of output: a task that waits leaves a waker here and not a place
//! in one of eight lists, so it costs little to look again. That waker stays until the next change, and with it what is left of
//! a task that has ended; so this is for what changes again and again, or goes with those which wait. What must stay true:
//! whoever found nothing is woken by the next change.

use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The value, for any number of tasks.
#[derive(Default)]
pub struct Monitor<T>(Mutex<Content<T>>);

#[derive(Default)]
struct Content<T> {
    value: T,
    /// Of tasks that have looked since the last change, once each.
    waiting: Vec<Waker>,
}

impl<T> Monitor<T> {
    /// A monitor that says this.
    pub fn new(value: T) -> Self {
        Self(Mutex::new(Content { value, waiting: Vec::new() }))
    }

    /// Looks at it, or changes what nobody waits for. It is locked meanwhile.
    pub fn with<R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
        look(&mut self.content().value)
    }

    /// Changes it, and wakes those which wait.
    pub fn update(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.content().value);
        self.notify_all();
    }

    /// Wakes those which wait.
    pub fn notify_all(&self) {
        // This puts them into the runtime's queue, where they run later.
        self.content().waiting.drain(..).for_each(Waker::wake);
    }

    /// What is found there, or else the task is woken when it changes.
    pub fn poll<R>(&self, context: &mut Context<'_>, look: impl FnOnce(&mut T) -> Poll<R>) -> Poll<R> {
        let mut content = self.content();
        let found = look(&mut content.value);
        let waker = context.waker();
        if found.is_pending() && !content.waiting.iter().any(|waiting| waiting.will_wake(waker)) {
            content.waiting.push(waker.clone());
        }
        found
    }

    /// Waits until it is so. Cancel safe.
    pub async fn wait_until(&self, is_so: impl Fn(&T) -> bool) {
        let look = |value: &mut T| if is_so(value) { Poll::Ready(()) } else { Poll::Pending };
        poll_fn(|context| self.poll(context, look)).await;
    }

    fn content(&self) -> MutexGuard<'_, Content<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl<T> Monitor<T> {
    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.content().waiting.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn updates_wake_all_waiters_once() {
        let monitor = Arc::new(Monitor::new(0));
        let tasks = [1, 2].map(|number| {
            let monitor = monitor.clone();
            tokio::spawn(async move { monitor.wait_until(|value| *value >= number).await })
        });
        tokio::task::yield_now().await;
        for look in 0..3 {
            assert_eq!(monitor.waiting(), 2, "{look}");
            monitor.notify_all();
            tokio::task::yield_now().await;
        }
        monitor.with(|value| *value = 1);
        tokio::task::yield_now().await;
        assert!(tasks.iter().all(|task| !task.is_finished()), "nobody was told");
        monitor.update(|value| *value += 1);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(monitor.waiting(), 0);
    }
}
