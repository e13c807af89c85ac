//! A monitor for asynchronous tasks: a mutex with a condition variable.
//!
//! tokio's `watch` has no poll function that changes the value under its lock, and registers each wait in one of eight
//! lists, which must be left again before the next. Here a task that waits leaves its waker, so that polling again
//! after each line of output costs little. The waker stays until the next update, even if its task has ended: so a
//! monitor is for values that change often, or that live no longer than the tasks which wait for them.
//!
//! **Invariants:** the next update wakes every task that found nothing.

use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// A value that any number of tasks share and wait for.
#[derive(Default)]
pub struct Monitor<T>(Mutex<Content<T>>);

#[derive(Default)]
struct Content<T> {
    value: T,
    /// The wakers of tasks that have polled since the last update, once each.
    waiting: Vec<Waker>,
}

impl<T> Monitor<T> {
    /// A monitor of this value.
    pub fn new(value: T) -> Self {
        Self(Mutex::new(Content { value, waiting: Vec::new() }))
    }

    /// Calls a function with the value, which is locked meanwhile. Wakes no task.
    pub fn with<R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
        look(&mut self.content().value)
    }

    /// Changes the value, and wakes all tasks that wait.
    pub fn update(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.content().value);
        self.notify_all();
    }

    /// Wakes all tasks that wait.
    pub fn notify_all(&self) {
        // The tasks only go into the runtime's queue here, and run later, without the lock.
        self.content().waiting.drain(..).for_each(Waker::wake);
    }

    /// Polls the value. If the result is pending, the next update wakes the task.
    pub fn poll<R>(&self, context: &mut Context<'_>, look: impl FnOnce(&mut T) -> Poll<R>) -> Poll<R> {
        let mut content = self.content();
        let found = look(&mut content.value);
        let waker = context.waker();
        if found.is_pending() && !content.waiting.iter().any(|waiting| waiting.will_wake(waker)) {
            content.waiting.push(waker.clone());
        }
        found
    }

    /// Waits until the value satisfies a condition. Cancel safe.
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
    /// How many tasks wait.
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
        assert!(tasks.iter().all(|task| !task.is_finished()), "woken without an update");
        monitor.update(|value| *value += 1);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(monitor.waiting(), 0);
    }
}
