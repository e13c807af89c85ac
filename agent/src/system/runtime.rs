//! The runtime, and tasks that nobody waits for.
//!
//! For each kind of future that the runtime is given there are one to two kilobytes of code in it. Here it is given one kind: one
//! more jump each time a task runs, which is nothing beside what waking it costs.

use std::io;
use std::pin::Pin;

use tokio::runtime::Builder;
use tokio::task::JoinHandle;

/// Runs a future to its end on this thread, and what it spawns.
///
/// # Errors
/// The kernel does not give what an event loop needs.
pub fn run(future: Pin<&mut dyn Future<Output = ()>>) -> io::Result<()> {
    Builder::new_current_thread().enable_all().build()?.block_on(future);
    Ok(())
}

/// Runs it beside everything else.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(future);
    tokio::spawn(future)
}
