//! Tasks that nobody waits for.
//!
//! For each kind of future that the runtime is given there are one to two kilobytes of code in it. Here it is given one kind: one
//! more jump each time a task runs, which is nothing beside what waking it costs.

use std::pin::Pin;

use tokio::task::JoinHandle;

/// Runs it beside everything else.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(future);
    tokio::spawn(future)
}
