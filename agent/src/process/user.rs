//! The user as whom a program runs, if not as the agent's own.

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Gid, Resource, Rlimit, Uid, setrlimit};
use rustix::thread::{set_no_new_privs, set_thread_gid, set_thread_groups, set_thread_uid};

use crate::process::error::Error;

/// A user of the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// All groups of the user.
    groups: Vec<Gid>,
    /// Home directory; `None` for a number without a name.
    pub home: Option<String>,
    /// Number of processes and threads that all programs of the user together may have.
    processes: u64,
}

/// Fraction of the kernel's threads that the programs of a user get: one in this many. The router's own processes use
/// the rest.
const PROCESSES_FRACTION: u64 = 4;

/// A user may have this many processes in any case: a Go program has some ten threads.
const MIN_PROCESSES: u64 = 64;

/// The largest number that a capability can have: a set of capabilities has 64 bits.
const MAX_CAPABILITY: libc::c_ulong = 63;

impl User {
    /// Finds a user by name, by number, or by number and group: `UID`, `UID:GID`.
    ///
    /// # Errors
    /// [`Error::NoSuchUser`]; [`Error::NotRoot`] if this agent cannot run programs as another user.
    pub fn find(name: &str) -> Result<Self, Error> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        let read = |path: &str| fs::read_to_string(path).map_err(Error::io("read", Path::new(path)));
        let users = read("/etc/passwd")?;
        // Without that file, no user is in further groups.
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        let user = Self::look_up(name, &users, &groups).ok_or_else(|| Error::NoSuchUser(name.to_owned()))?;
        let threads = read("/proc/sys/kernel/threads-max")?;
        Ok(Self { processes: processes(threads.trim().parse().unwrap_or(0)), ..user })
    }

    /// Home directory of the user that this agent runs as, by /etc/passwd; `None` if that does not name one.
    pub fn own_home() -> Option<String> {
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        Self::look_up(&own_uid().to_string(), &users, "")?.home
    }

    /// Finds a user in the texts of passwd(5) and group(5).
    fn look_up(name: &str, users: &str, groups: &str) -> Option<Self> {
        let entry = users.lines().map(|line| line.split(':')).find_map(|mut fields| {
            let known = fields.next()?;
            let uid = fields.nth(1)?;
            (known == name || uid == name)
                .then(|| Some((known, uid.parse().ok()?, fields.next()?.parse().ok()?, fields.nth(1)?)))?
        });
        let Some((name, uid, gid, home)) = entry else {
            let (uid, gid) = name.split_once(':').unwrap_or((name, name));
            let (uid, gid): (u32, u32) = (uid.parse().ok()?, gid.parse().ok()?);
            // For setresuid(2), the largest number means no change.
            if [uid, gid].contains(&u32::MAX) {
                return None;
            }
            return Some(Self { uid, gid, groups: vec![Gid::from_raw(gid)], home: None, processes: 0 });
        };
        let further = groups.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let group = fields.nth(2)?.parse().ok()?;
            fields.next()?.split(',').any(|member| member == name).then_some(group)
        });
        let groups = std::iter::once(gid).chain(further).map(Gid::from_raw).collect();
        Some(Self { uid, gid, groups, home: Some(home.to_owned()), processes: 0 })
    }

    /// Makes the calling process run as this user for good: nothing that it executes gains rights (prctl(2),
    /// PR_SET_NO_NEW_PRIVS), no capability can come back (capabilities(7), the bounding set), and it may have only a
    /// fraction of the router's processes. Safe between fork and exec.
    ///
    /// # Errors
    /// The kernel refuses one of these changes.
    pub fn drop_privileges(&self) -> io::Result<()> {
        // A user who requests root gets root; and the limit on processes does not bind root.
        if self.uid != 0 {
            drop_bounding_set()?;
            setrlimit(
                Resource::Nproc,
                Rlimit { current: Some(self.processes), maximum: Some(self.processes) },
            )?;
        }
        set_thread_groups(&self.groups)?;
        set_thread_gid(Gid::from_raw(self.gid))?;
        set_thread_uid(Uid::from_raw(self.uid))?;
        set_no_new_privs(true)?;
        Ok(())
    }
}

/// The id of the user that this agent runs as.
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Number of processes that a user may have if the kernel can have this many threads.
fn processes(threads: u64) -> u64 {
    (threads / PROCESSES_FRACTION).max(MIN_PROCESSES)
}

/// Drops all capabilities from the bounding set (prctl(2), PR_CAPBSET_DROP): not even a file's capabilities bring one
/// back.
fn drop_bounding_set() -> io::Result<()> {
    for capability in 0..=MAX_CAPABILITY {
        // SAFETY: the call takes numbers and touches no memory.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            let error = io::Error::last_os_error();
            // The kernel has no more capabilities.
            return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const USERS: &str =
        "root:x:0:0:root:/root:/bin/ash\nnobody:*:65534:65533:nobody:/var:/bin/false\nbroken\n";
    const GROUPS: &str = "root:x:0:\ndialout:x:20:root,nobody\naudio:x:29:nobody2\nnogroup:x:65533:\n";

    #[test]
    fn users_are_found_by_name_or_number() {
        let look_up = |name: &str| User::look_up(name, USERS, GROUPS);
        let groups = |groups: &[u32]| groups.iter().map(|group| Gid::from_raw(*group)).collect();
        let nobody = User {
            uid: 65534,
            gid: 65533,
            groups: groups(&[65533, 20]),
            home: Some("/var".into()),
            processes: 0,
        };
        assert_eq!(look_up("nobody"), Some(nobody.clone()));
        assert_eq!(look_up("65534"), Some(nobody));
        assert_eq!(
            look_up("7"),
            Some(User { uid: 7, gid: 7, groups: groups(&[7]), home: None, processes: 0 })
        );
        assert_eq!(
            look_up("7:8"),
            Some(User { uid: 7, gid: 8, groups: groups(&[8]), home: None, processes: 0 })
        );
        for unknown in ["", "somebody", "broken", "-1", "7:", "4294967296"] {
            assert_eq!(look_up(unknown), None, "{unknown}");
        }
    }
    #[test]
    fn thread_limit_is_fraction_of_maximum() {
        assert_eq!((processes(900), processes(100)), (225, MIN_PROCESSES));
    }
}
