//! Whom a program runs as, if not as the agent does.

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_no_new_privs, set_thread_gid, set_thread_groups, set_thread_uid};

use crate::error::Error;

/// A user of the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// All groups that it is in.
    groups: Vec<Gid>,
    /// Its home; `None` for a number that has no name.
    pub home: Option<String>,
}

impl User {
    /// The user of this name, or of this number, or number and group: `UID`, `UID:GID`.
    ///
    /// # Errors
    /// [`Error::NoSuchUser`]; [`Error::NotRoot`] if this agent cannot run programs as another.
    pub fn find(name: &str) -> Result<Self, Error> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        let read = |path: &str| fs::read_to_string(path).map_err(Error::io("read", Path::new(path)));
        let users = read("/etc/passwd")?;
        // Without that file nobody is in a further group.
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        Self::look_up(name, &users, &groups).ok_or_else(|| Error::NoSuchUser(name.to_owned()))
    }

    /// Looks in the texts of passwd(5) and group(5).
    fn look_up(name: &str, users: &str, groups: &str) -> Option<Self> {
        let entry = users.lines().map(|line| line.split(':')).find_map(|mut fields| {
            let known = fields.next()?;
            let uid = fields.nth(1)?;
            (known == name || uid == name)
                .then(|| Some((known, uid.parse().ok()?, fields.next()?.parse().ok()?, fields.nth(1)?)))?
        });
        let Some((name, uid, gid, home)) = entry else {
            let (uid, gid) = name.split_once(':').unwrap_or((name, name));
            let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
            return Some(Self { uid, gid, groups: vec![Gid::from_raw(gid)], home: None });
        };
        let further = groups.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let group = fields.nth(2)?.parse().ok()?;
            fields.next()?.split(',').any(|member| member == name).then_some(group)
        });
        let groups = std::iter::once(gid).chain(further).map(Gid::from_raw).collect();
        Some(Self { uid, gid, groups, home: Some(home.to_owned()) })
    }

    /// Makes the calling process this user's, for good: nothing that it executes has more rights (prctl(2),
    /// PR_SET_NO_NEW_PRIVS). Between fork and exec.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn become_it(&self) -> io::Result<()> {
        set_thread_groups(&self.groups)?;
        set_thread_gid(Gid::from_raw(self.gid))?;
        set_thread_uid(Uid::from_raw(self.uid))?;
        set_no_new_privs(true)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const USERS: &str =
        "root:x:0:0:root:/root:/bin/ash\nnobody:*:65534:65533:nobody:/var:/bin/false\nbroken\n";
    const GROUPS: &str = "root:x:0:\ndialout:x:20:root,nobody\naudio:x:29:nobody2\nnogroup:x:65533:\n";

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        let look_up = |name: &str| User::look_up(name, USERS, GROUPS);
        let groups = |groups: &[u32]| groups.iter().map(|group| Gid::from_raw(*group)).collect();
        let nobody = User { uid: 65534, gid: 65533, groups: groups(&[65533, 20]), home: Some("/var".into()) };
        assert_eq!(look_up("nobody"), Some(nobody.clone()));
        assert_eq!(look_up("65534"), Some(nobody));
        assert_eq!(look_up("7"), Some(User { uid: 7, gid: 7, groups: groups(&[7]), home: None }));
        assert_eq!(look_up("7:8"), Some(User { uid: 7, gid: 8, groups: groups(&[8]), home: None }));
        for unknown in ["", "somebody", "broken", "-1", "7:", "4294967296"] {
            assert_eq!(look_up(unknown), None, "{unknown}");
        }
    }
}
