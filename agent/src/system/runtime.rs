//! The runtime, and background tasks.
//!
//! The runtime takes one to two kilobytes of code for each type of future that it runs. So the agent boxes all of them
//! into one type: that takes one more jump each time a task runs, which is nothing compared with waking it.

use std::io;
use std::pin::Pin;

use tokio::runtime::Builder;
use tokio::task::JoinHandle;

/// Runs a future to completion on this thread, and the tasks that it spawns.
///
/// # Errors
/// The kernel lacks something that an event loop needs.
pub fn run(future: Pin<&mut dyn Future<Output = ()>>) -> io::Result<()> {
    Builder::new_current_thread().enable_all().build()?.block_on(future);
    Ok(())
}

/// Runs a future as a background task.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(future);
    tokio::spawn(future)
}
