//! Who may connect: the agent's key, the list of controllers, and what others could have tampered with.

pub mod authorized_keys;
pub mod directory_lock;
pub mod key_file;
pub mod refusal_log;
pub mod safe_path;
