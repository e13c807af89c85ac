//! Moments that may never come.

use tokio::time::{Instant, sleep_until};

/// Sleeps until then, or for ever.
pub async fn sleep_until_opt(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
