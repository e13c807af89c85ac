//! Go: building for a router, the programs that it built, and `go test -exec`.

pub mod build;
pub mod build_info;
mod error;
pub mod module;
mod packages;
pub mod probe;
pub mod sources;
pub mod test_exec;
pub mod watcher;

pub use self::error::Error;
