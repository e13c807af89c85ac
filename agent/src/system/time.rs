//! Deadlines that may not exist.

use tokio::time::{Instant, sleep_until};

/// Sleeps until `instant`, or forever if it is `None`.
pub async fn sleep_until_opt(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
