//! Go: building for a router, the programs that it built, and `go test -exec`.

pub mod build;
pub mod build_info;
mod error;
pub mod module;
mod module_files;
pub mod probe;
pub mod test_exec;
mod translated;

pub use self::error::Error;
