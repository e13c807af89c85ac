//! Where an agent's files go on a router, and what starts it.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Error;
use super::survey::{Flavour, Mount, PROCD_SERVICE, Survey};
use crate::config::enrolment::Persistence;

/// The mechanism that starts the agent at boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootMethod {
    /// Nothing.
    None,
    /// procd, by `/etc/init.d/hopd`; its list of what a firmware upgrade keeps is this file.
    Procd {
        /// Below keep.d.
        keep: PathBuf,
    },
    /// DD-WRT runs this file.
    BootHook(PathBuf),
    /// DD-WRT runs what nvram holds as `rc_startup`.
    Nvram,
}

impl BootMethod {
    /// Its name in the scripts.
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Procd { .. } => "procd",
            Self::BootHook(_) => "boot-hook",
            Self::Nvram => "nvram",
        }
    }
}

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// How long it stays.
    pub persistence: Persistence,
    /// The mechanism that starts it at boot.
    pub boot_method: BootMethod,
    /// The agent's executable.
    pub program: PathBuf,
    /// Directory of its key and of the list of who may connect.
    pub state: PathBuf,
}

/// Bytes of flash beside the agent: key, settings, scripts, and what the file system itself needs for them.
const FLASH_TO_SPARE: u64 = 64 * 1024;

/// How long a boot hook waits for its disk, in seconds. DD-WRT checks a file system before it mounts it, and fsck(8) takes
/// minutes on a large one that was not unmounted.
const MAX_DISK_DELAY: u32 = 900;

impl Layout {
    /// In RAM, the same everywhere.
    pub fn until_reboot() -> Self {
        Self {
            persistence: Persistence::UntilReboot,
            boot_method: BootMethod::None,
            program: "/tmp/hop/hopd".into(),
            state: "/tmp/hop".into(),
        }
    }

    /// On what survives a reboot, for an agent of `size` bytes.
    ///
    /// # Errors
    /// [`Error::NoFlash`], [`Error::NothingPersistent`], [`Error::OpenToOthers`], [`Error::NoOverlay`],
    /// [`Error::ReadOnly`], [`Error::UnknownInit`].
    pub fn install(survey: &Survey, host: &str, size: u64) -> Result<Self, Error> {
        let unknown_init = || Error::UnknownInit { host: host.to_owned(), init: survey.init.clone() };
        let (layout, mount) = match survey.flavour {
            // A RutOS can be built with OpenRC in the place of procd.
            Flavour::OpenWrt | Flavour::RutOs if !survey.has(PROCD_SERVICE) => return Err(unknown_init()),
            Flavour::OpenWrt => (Self::procd(""), survey.mount_of(Path::new("/overlay"))),
            Flavour::RutOs => (Self::procd("/usr/local"), survey.mount_of(Path::new("/usr/local"))),
            Flavour::DdWrt => {
                let mount = dd_wrt_home(survey, host)?;
                (Self::dd_wrt(&mount.place.join("hop")), Some(mount))
            }
            Flavour::Other => return Err(unknown_init()),
        };
        let Some(mount) = mount else { return Ok(layout) };
        let Some(backing) = survey.backing(mount) else {
            return Err(Error::NoOverlay { host: host.to_owned() });
        };
        // A flash with errors becomes read-only below an overlay that does not know; in failsafe mode there is only squashfs.
        let above = survey.mount_of(&layout.program).unwrap_or(mount);
        if let Some(read_only) = [above, mount, backing].into_iter().find(|mount| !mount.has("rw")) {
            return Err(Error::ReadOnly { host: host.to_owned(), place: read_only.place.clone() });
        }
        let Mount { place, size: Some((_, free)), .. } = mount else { return Ok(layout) };
        // jffs2 and ubifs compress: an agent takes a bit less than half of its size there.
        let needed =
            FLASH_TO_SPARE + if matches!(backing.kind.as_str(), "jffs2" | "ubifs") { size / 2 } else { size };
        if *free < needed {
            return Err(Error::NoFlash { host: host.to_owned(), place: place.clone(), needed, free: *free });
        }
        Ok(layout)
    }

    /// Why an agent that was installed cannot be seen at the moment, nor be removed, though it may run again after the next
    /// boot. `program` is where it was put, as far as that is known.
    ///
    /// # Errors
    /// The storage that survives a reboot is not mounted, or is read-only.
    pub fn check_presence(survey: &Survey, host: &str, program: Option<&Path>) -> Result<(), Error> {
        if survey.flavour != Flavour::DdWrt {
            return match Self::install(survey, host, 0) {
                Err(why @ (Error::NoOverlay { .. } | Error::ReadOnly { .. })) => Err(why),
                _ => Ok(()),
            };
        }
        let homes = survey.homes.iter().map(PathBuf::as_path).chain(program.and_then(Path::parent));
        for home in homes {
            let place = home.parent().unwrap_or(home);
            match survey.mount_of(place) {
                Some(mount) if mount.place == Path::new("/") || mount.is_in_ram() => {
                    return Err(Error::NotMounted { host: host.to_owned(), place: place.to_owned() });
                }
                Some(mount) if !mount.has("rw") => {
                    return Err(Error::ReadOnly { host: host.to_owned(), place: mount.place.clone() });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The layout of an agent whose executable was found at `program`.
    pub fn of_existing(program: &Path) -> Self {
        match program.to_str() {
            Some("/usr/sbin/hopd") => Self::procd(""),
            Some("/usr/local/usr/sbin/hopd") => Self::procd("/usr/local"),
            Some("/tmp/hop/hopd") => Self::until_reboot(),
            _ => Self::dd_wrt(program.parent().unwrap_or(program)),
        }
    }

    fn procd(prefix: &str) -> Self {
        Self {
            persistence: Persistence::Install,
            boot_method: BootMethod::Procd { keep: format!("{prefix}/lib/upgrade/keep.d/hopd").into() },
            program: format!("{prefix}/usr/sbin/hopd").into(),
            state: "/etc/hopd".into(),
        }
    }

    fn dd_wrt(home: &Path) -> Self {
        let boot_method = match home.to_str() {
            Some("/jffs/hop") => BootMethod::BootHook("/jffs/etc/config/hopd.startup".into()),
            Some("/opt/hop") => BootMethod::BootHook("/opt/etc/init.d/S95hopd".into()),
            _ => BootMethod::Nvram,
        };
        Self {
            persistence: Persistence::Install,
            boot_method,
            program: home.join("hopd"),
            state: home.to_owned(),
        }
    }

    /// What the boot hook of DD-WRT does. It waits for a disk that is mounted late, and it must not be waited for:
    /// the boot goes on when a hook ends. What it starts must be root's alone, for hooks are run again while others are at
    /// work: on a DD-WRT anybody may rename what is in /tmp unless that is sticky.
    pub fn hook_script(&self) -> String {
        let start = self.state.join("start");
        let is_everybodys = |part: &&Path| [Path::new("/"), Path::new("/tmp")].contains(part);
        let parts = start.ancestors().filter(|part| !is_everybodys(part));
        let parts: Vec<String> = parts.map(|part| part.display().to_string()).collect();
        format!(
            "(chmod +t /tmp; i=0; while [ $i -lt {MAX_DISK_DELAY} ]; do [ -f {start} ] && {{ ls -ldn {parts} | \
             grep -qv '^[d-]....-..-.[^ ]*  *[0-9]*  *0 ' || exec sh {start}; \
             logger -t hopd \"{start} is not root's alone\"; exit; }}; i=$((i+2)); sleep 2; done) \
             </dev/null >/dev/null 2>&1 &",
            start = start.display(),
            parts = parts.join(" ")
        )
    }
}

/// The best place on a DD-WRT: JFFS, else the partition for packages, else the first disk. It holds the agent's key, which
/// must be private, and which is made by a hard link; a stick as it is bought, with FAT or NTFS, has neither. And what boots
/// as root is in it, which nobody else may write.
fn dd_wrt_home<'a>(survey: &'a Survey, host: &str) -> Result<&'a Mount, Error> {
    // A disk may have any name, and what boots as root names it.
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._/-".contains(byte);
    let has_plain_name = |mount: &Mount| mount.place.as_os_str().as_bytes().iter().all(is_plain);
    let suitable = |mount: &&Mount| mount.has("rw") && mount.has_owners() && has_plain_name(mount);
    let is_open = |mount: &Mount| survey.open.contains(&mount.place);
    let is_disk = |mount: &&Mount| mount.place.starts_with("/tmp/mnt");
    let all = || survey.mounts.iter().filter(suitable);
    let at = |place: &str| all().filter(|mount| mount.place == Path::new(place)).collect();
    let ranked: [Vec<&Mount>; 3] = [at("/jffs"), at("/opt"), all().filter(is_disk).collect()];
    let ranked = || ranked.iter().flatten().copied();
    if let Some(home) = ranked().find(|mount| !is_open(mount)) {
        return Ok(home);
    }
    Err(match ranked().next() {
        Some(open) => Error::OpenToOthers { host: host.to_owned(), place: open.place.clone() },
        None => Error::NothingPersistent { host: host.to_owned() },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    /// A router that says of itself no more than what decides where an agent goes.
    fn survey(system: &str, mounts: &str) -> Survey {
        let text = format!(
            "@system\n{system}\n@openwrt\nDISTRIB_ID='OpenWrt'\n@mounts\n{mounts}\n@tools\nubus\nprocd-service\n@elf\n"
        );
        Survey::parse(text.as_bytes())
    }

    fn installed(survey: &Survey) -> Result<PathBuf, Error> {
        Layout::install(survey, "desk", 1_860_000).map(|layout| layout.program)
    }

    #[test]
    fn disk_without_owners_holds_no_key() {
        let ramfs = "ramfs /tmp ramfs rw 0 0\n";
        for kind in [
            "vfat",
            "msdos",
            "exfat",
            "ntfs",
            "ntfs3",
            "antfs",
            "fuseblk",
            "fuse.ntfs-3g",
            "hfs",
            "hfsplus",
            "udf",
            "iso9660",
            "cifs",
            "squashfs",
            "one-that-is-not-known",
        ] {
            let stick = format!("{ramfs}/dev/sda1 /tmp/mnt/sda1 {kind} rw 0 0\n");
            let refused = installed(&survey("DD-WRT", &stick)).unwrap_err();
            assert!(matches!(refused, Error::NothingPersistent { .. }), "{kind}: {refused}");
            let second = format!("{stick}/dev/sdb1 /tmp/mnt/sdb1 ext4 rw 0 0");
            assert_eq!(installed(&survey("DD-WRT", &second)).unwrap(), Path::new("/tmp/mnt/sdb1/hop/hopd"));
        }
    }

    #[test]
    fn boot_hook_waits_for_slow_fsck() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("mnt/hop");
        // Instead of seconds that pass: the disk is mounted in the tenth minute.
        let sleep = format!(
            "#!/bin/sh\necho >>{0}/waited\n[ $(wc -l <{0}/waited) -lt 300 ] || {{ mkdir -p {1}; echo 'echo started >$0.done' >{1}/start; }}\n",
            dir.path().display(),
            state.display()
        );
        std::fs::write(dir.path().join("sleep"), sleep).unwrap();
        std::fs::set_permissions(dir.path().join("sleep"), PermissionsExt::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
        let script = format!("{} wait", Layout::dd_wrt(&state).hook_script());
        let ran = Command::new("sh").args(["-c", &script]).env("PATH", path).status().unwrap();
        assert!(ran.success());
        assert_eq!(std::fs::read_to_string(state.join("start.done")).unwrap(), "started\n");
    }

    #[test]
    fn init_without_procd_services_is_refused() {
        let mut openrc = survey("GNU/Linux", "/dev/mmcblk0p2 / ext4 rw 0 0");
        openrc.tools.retain(|tool| tool != PROCD_SERVICE);
        let refused = installed(&openrc).unwrap_err();
        assert!(matches!(refused, Error::UnknownInit { .. }), "{refused}");
    }

    #[test]
    fn overlay_in_ram_is_no_flash() {
        let overlay = "overlayfs:/tmp/root / overlay rw,lowerdir=/,upperdir=/tmp/root/upper 0 0\n";
        for mounts in [
            "tmpfs / tmpfs rw 0 0",
            overlay,
            "overlayfs:/tmp/root / overlayfs rw 0 0",
            &format!("{overlay}tmpfs /overlay tmpfs rw 0 0"),
        ] {
            let refused = installed(&survey("GNU/Linux", mounts)).unwrap_err();
            assert!(matches!(refused, Error::NoOverlay { .. }), "{mounts}: {refused}");
        }
        let flash = format!("/dev/mtdblock1 /overlay jffs2 rw 0 0\n{overlay}");
        for mounts in [&flash, "/dev/mmcblk0p2 / ext4 rw 0 0"] {
            assert_eq!(installed(&survey("GNU/Linux", mounts)).unwrap(), Path::new("/usr/sbin/hopd"));
        }
    }

    #[test]
    fn read_only_flash_is_no_flash() {
        let failsafe = "/dev/root / squashfs ro,relatime 0 0\ntmpfs /tmp tmpfs rw 0 0";
        let jffs2 = "/dev/mtdblock1 /overlay jffs2 ro 0 0\noverlayfs:/overlay / overlay rw,upperdir=/overlay/upper 0 0";
        let overlay = "/dev/mtdblock1 /overlay jffs2 rw 0 0\noverlayfs:/overlay / overlay ro,lowerdir=/ 0 0";
        for (mounts, place) in [(failsafe, "/"), (jffs2, "/overlay"), (overlay, "/")] {
            let survey = survey("GNU/Linux", mounts);
            let refused = installed(&survey).unwrap_err();
            assert!(
                matches!(&refused, Error::ReadOnly { place: found, .. } if found == Path::new(place)),
                "{refused}"
            );
            assert!(Layout::check_presence(&survey, "desk", None).is_err(), "{mounts}");
        }
        let mounted = survey("GNU/Linux", &overlay.replace("ro,", "rw,"));
        assert!(Layout::check_presence(&mounted, "desk", None).is_ok());
    }

    #[test]
    fn absent_disk_hides_an_installation() {
        let root = "/dev/root / squashfs ro 0 0\nramfs /tmp ramfs rw 0 0\n";
        let disk = format!("{root}/dev/sda1 /tmp/mnt/sda1 ext4 rw 0 0\n");
        let opt = format!("{root}/dev/sda1 /opt ext4 rw 0 0\n");
        let away = |mounts: &str, program: Option<&str>| {
            Layout::check_presence(&survey("DD-WRT", mounts), "desk", program.map(Path::new)).is_err()
        };
        let hooked = format!("{root}@homes\n/tmp/mnt/sda1/hop");
        assert!(away(&hooked, None), "a boot hook names it");
        assert!(!away(&format!("{disk}@homes\n/tmp/mnt/sda1/hop"), None));
        assert!(away(root, Some("/opt/hop/hopd")) && !away(&opt, Some("/opt/hop/hopd")));
        assert!(away(&disk, Some("/tmp/mnt/sdb1/hop/hopd")) && !away(&disk, Some("/tmp/mnt/sda1/hop/hopd")));
        assert!(away(&disk.replace("ext4 rw", "ext4 ro"), Some("/tmp/mnt/sda1/hop/hopd")));
        assert!(!away(root, None), "nothing is known to be anywhere");
    }

    #[test]
    fn disk_writable_by_others_is_refused() {
        let mounts = "/dev/sda1 /tmp/mnt/sda1 ext4 rw 0 0\n";
        let open = |mounts: &str| survey("DD-WRT", &format!("{mounts}@open\n/tmp/mnt/sda1"));
        let refused = installed(&open(mounts)).unwrap_err();
        assert!(matches!(refused, Error::OpenToOthers { .. }), "{refused}");
        let second = format!("{mounts}/dev/sdb1 /tmp/mnt/sdb1 ext4 rw 0 0\n");
        assert_eq!(installed(&open(&second)).unwrap(), Path::new("/tmp/mnt/sdb1/hop/hopd"));
    }

    #[test]
    fn boot_hook_checks_owner_before_running() {
        let hook = Layout::dd_wrt(Path::new("/tmp/mnt/sda1/hop")).hook_script();
        assert!(
            hook.contains("ls -ldn /tmp/mnt/sda1/hop/start /tmp/mnt/sda1/hop /tmp/mnt/sda1 /tmp/mnt | grep"),
            "{hook}"
        );
        assert!(hook.contains(" || exec sh /tmp/mnt/sda1/hop/start; ") && hook.len() < 600, "{hook}");
    }
}
