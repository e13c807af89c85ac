//! Access control: the agent's key, the list of authorized controllers, and checks whether others could have modified
//! them.

pub mod authorized_keys;
pub mod directory_lock;
pub mod key_file;
pub mod refusal_log;
pub mod safe_path;
