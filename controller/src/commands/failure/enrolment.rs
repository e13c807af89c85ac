//! The exit code, reason and hint of each failure of enrolment.

use std::borrow::Cow;

use super::{LET_IT_PROMISE_MORE, Meaning, of_client, of_config, of_program, some};
use crate::client::ssh;
use crate::enrolment::Error;
use crate::enrolment::suitability::Unsupported;
use crate::enrolment::survey::Flavour;

/// The reason, and what to do about it.
pub fn of_enrolment(error: &Error) -> Meaning {
    match error {
        Error::Io(_) => ("local_io", None),
        Error::Config(error) => of_config(error),
        Error::Client(error) => of_client(error),
        Error::Program(error) => of_program(error),
        Error::Ssh(ssh::Error::Run(_)) => ("ssh", some("install the OpenSSH client")),
        Error::Ssh(ssh::Error::Failed { login, .. }) => {
            ("ssh", Some(format!("does `{login}` log in?").into()))
        }
        Error::NotRemoved { cause, name } => {
            let (reason, hint) = of_enrolment(cause);
            let hint = hint.map(|hint| format!("{hint} ")).unwrap_or_default();
            let hint = format!("{hint}If the router is gone for good: hop router remove --forget {name}");
            (reason, Some(hint.into()))
        }
        Error::Ssh(ssh::Error::TooMuch { .. }) => {
            ("ssh", some("does its login shell print without end, or is it another machine?"))
        }
        Error::Destination(_) => ("ssh", some("an IPv6 address with a port is written [ADDRESS]:PORT")),
        Error::NoPlace(_) => ("ssh", some("is /tmp full?")),
        Error::NoShell { host, .. } => {
            let address = host.rsplit_once('@').map_or(&**host, |(_, address)| address);
            let hint = format!("log in as a user with a shell, which on most firmware is root@{address}");
            ("ssh", Some(hint.into()))
        }
        Error::Unsupported { why, .. } => ("unsuitable", of_unsuitable(why)),
        Error::UnknownInit { .. } => ("unsuitable", some("--until-reboot needs none")),
        Error::NoFlash { .. } => ("no_flash", some("--until-reboot keeps everything in RAM")),
        Error::NothingPersistent { .. } => (
            "no_flash",
            some(
                "enable JFFS2 or plug in a USB stick with ext4, because FAT and NTFS cannot keep a key private; or --until-reboot, which keeps everything in RAM",
            ),
        ),
        Error::NoOverlay { .. } => (
            "no_flash",
            some(
                "has it just been flashed, or is it in failsafe mode? Reboot it; or --until-reboot, which keeps everything in RAM",
            ),
        ),
        Error::ReadOnly { .. } => (
            "no_flash",
            some(
                "is it in failsafe mode, or did a fault of its flash make it read-only (`dmesg` says)? Reboot it; or --until-reboot, which keeps everything in RAM",
            ),
        ),
        Error::NotMounted { .. } => ("no_flash", some("plug the disk in, and wait until it is mounted")),
        Error::OpenToOthers { place, .. } => {
            let hint = format!(
                "on the router: chown 0:0 {0}; chmod go-w {0}; or --until-reboot, which keeps everything in RAM",
                place.display()
            );
            ("no_flash", Some(hint.into()))
        }
        Error::Away { name, .. } => {
            let hint = format!(
                "reboot it, or plug its disk in, and try again; if the agent is gone for good: hop router remove --forget {name}"
            );
            ("no_flash", Some(hint.into()))
        }
        Error::Foreign { path, .. } => {
            let hint = format!(
                "on the router: `ls -ldn {0}` and of what is above says whose it is; `rm -r {0}` if nobody wants it, or chown 0:0 and chmod go-w if it is Hop's",
                path.display()
            );
            ("untrusted_path", Some(hint.into()))
        }
        Error::CacheDirInRam { .. } | Error::CacheDirInFlash { .. } => {
            ("usage", some("is the medium there? A stick is mounted some seconds after the boot"))
        }
        Error::OtherCacheDir { name, .. } => {
            let hint =
                format!("run `hop router remove {name}` first; or leave out --cache-dir to share the agent");
            ("enrolled_already", Some(hint.into()))
        }
        Error::OtherWay { name, .. } => {
            let hint = format!(
                "run `hop router remove {name}` first; or leave out --install and --until-reboot to share the agent"
            );
            ("enrolled_already", Some(hint.into()))
        }
        Error::UnderWay { .. } => (
            "enrolled_already",
            some("wait a minute: by then the router has undone an interrupted enrolment"),
        ),
        Error::Damaged { .. } => {
            ("damaged", some("try again; if it happens twice, the router's memory is bad"))
        }
        Error::NotExecuted { .. } => (
            "self_test",
            some(
                "the kernel refuses what it should run: please report it with the output of `hop router check`",
            ),
        ),
        Error::SelfTest { .. } => (
            "self_test",
            some(
                "this kernel breaks what programs need; please report it with the router's model and firmware",
            ),
        ),
        // As musl and glibc say it, and listening.sh.
        Error::NotListening { source, .. } if source.0.contains("in use") => {
            ("enrolment", some("--port chooses another one"))
        }
        Error::NotListening { source, .. } if source.0.starts_with("it listens on port") => {
            ("enrolment", some("--port says on which port it listens"))
        }
        Error::NotListening { .. } | Error::Step { .. } => ("enrolment", None),
        Error::NoInterface { .. } => ("usage", some("`ls /sys/class/net` there lists them")),
        Error::UnknownInterface { .. } => (
            "usage",
            some("--listen-interface names the one on which the agent is to listen: br-lan, or any"),
        ),
        Error::UnknownKey { .. } => ("usage", some("KEY is a fingerprint, or its comment on the list")),
        Error::AmbiguousKey { .. } => ("usage", some("give its fingerprint, which `hop key` shows there")),
        Error::OwnKey { .. } | Error::OnlyKey { .. } => (
            "usage",
            some(
                "--force revokes it all the same; `hop router add` authorizes this controller again over ssh",
            ),
        ),
        Error::OtherKey { name, .. } => {
            ("wrong_key", Some(format!("`hop router add {name}` enrols it again, by its login").into()))
        }
        Error::NoLogin { name } => {
            ("no_login", Some(format!("`hop router add {name} root@ADDRESS` enrols it over ssh").into()))
        }
        Error::NoAgent { name, .. } => {
            ("no_agent", Some(format!("`hop router add {name}` starts it again").into()))
        }
        Error::NotUndone { cause, name, .. } => {
            let hint = format!(
                "the router removes it within a minute; if it reboots before that, run `hop router add {name}` and then `hop router remove {name}`"
            );
            (of_enrolment(cause).0, Some(hint.into()))
        }
        Error::NotRestored { cause, name, .. } => {
            let hint = format!(
                "if the connection broke, the router restores it within two minutes; then `hop router check {name}` shows its state, and `hop router upgrade {name}`, or `hop router add {name}` if it is gone, tries again"
            );
            (of_enrolment(cause).0, Some(hint.into()))
        }
        Error::Interrupted { .. } => ("interrupted", None),
    }
}

/// The hint for a router on which Hop cannot work.
fn of_unsuitable(why: &Unsupported) -> Option<Cow<'static, str>> {
    some(match why {
        Unsupported::NotRoot => "log in as root@HOST",
        Unsupported::NoExec => "on the router: mount -o remount,exec /tmp",
        Unsupported::NoRoom { .. } | Unsupported::NoMemory { .. } => {
            "free some memory: end a service or a package's daemon, or reboot it"
        }
        Unsupported::OldKernel { flavour: Flavour::DdWrt, .. } => {
            "install a K3.X build of DD-WRT for this model: those with K2.6 in their name run no agent and no Go"
        }
        Unsupported::OldKernel { .. } => "install a newer firmware",
        Unsupported::NoPromise { .. } => LET_IT_PROMISE_MORE,
        Unsupported::NoTool(_) => "install or enable them; they are applets of BusyBox",
        Unsupported::NotMips(_) | Unsupported::NoO32 | Unsupported::NotInRam(_) => return None,
    })
}
