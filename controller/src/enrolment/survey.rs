//! Surveys a router over an ssh login, before Hop changes anything on it; and decides whether Hop can work there.

use std::path::{Path, PathBuf};

use hop_formats::meminfo::Memory;
use hop_formats::size::Size;

use super::Error;
use crate::console::printable::{printable, printable_lines};
use hop_formats::elf;

/// The script that asks. It uses only what every flavour has.
pub const SCRIPT: &str = include_str!("scripts/survey.sh");

/// What [`Survey::has`] if services are procd's: it says so on the bus.
pub const PROCD_SERVICE: &str = "procd-service";

/// The family of firmware, which decides where things are kept and how they are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// OpenWrt, and firmware that is built from it and works the same way.
    OpenWrt,
    /// Teltonika's RutOS since 7.14: OpenWrt whose `/` is read-only, with `/etc` and `/usr/local` writable.
    RutOs,
    /// DD-WRT: settings in nvram, `/tmp` a ramfs, no supervisor.
    DdWrt,
    /// Something else with a shell.
    Other,
}

impl Flavour {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenWrt => "OpenWrt",
            Self::RutOs => "RutOS",
            Self::DdWrt => "DD-WRT",
            Self::Other => "Linux",
        }
    }
}

/// A mounted file system (a line of /proc/mounts).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub place: PathBuf,
    /// Its type: tmpfs, ramfs, jffs2 …
    pub kind: String,
    /// Options, as the kernel lists them.
    pub options: Vec<String>,
    /// Bytes in all and bytes free, as df says; `None` for one that says nothing of itself, as ramfs does.
    pub size: Option<(u64, u64)>,
}

impl Mount {
    /// True if it has this option.
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|one| one == option)
    }

    /// True if files there are lost at a reboot.
    pub fn is_in_ram(&self) -> bool {
        matches!(self.kind.as_str(), "tmpfs" | "ramfs" | "rootfs")
    }

    /// True if files there have owners, modes and hard links for certain: without them a key is not private. What is not
    /// known has none, because there are more that are read by a name of their own (antfs, ntfs3, hfs, udf, cifs) than that
    /// are written as Unix does.
    pub fn has_owners(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "ext2"
                | "ext3"
                | "ext4"
                | "jffs2"
                | "ubifs"
                | "yaffs2"
                | "f2fs"
                | "xfs"
                | "btrfs"
                | "reiserfs"
                | "jfs"
        )
    }

    /// True if it is on bare flash, which is small and wears out.
    pub fn is_flash(&self) -> bool {
        matches!(self.kind.as_str(), "jffs2" | "ubifs" | "yaffs2" | "squashfs")
    }
}

/// An agent that is on the router already, in a place where only root can have put it. It was not run: which version it
/// is, it says when it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its file.
    pub path: PathBuf,
    /// Bytes of that.
    pub size: u64,
    /// SHA-256 of that in hexadecimal digits, if the router has a sha256sum.
    pub digest: Option<String>,
}

/// The facts about a router.
#[derive(Clone, Debug)]
pub struct Survey {
    /// True if the login is root's.
    pub is_root: bool,
    /// `uname -m`. Both endians call themselves `mips`.
    pub machine: String,
    /// `uname -r`.
    pub kernel: String,
    /// Its family.
    pub flavour: Flavour,
    /// "OpenWrt 22.03.5", as it calls itself.
    pub firmware: String,
    /// The name of process 1.
    pub init: String,
    /// "MIPS 24Kc V7.4".
    pub cpu: String,
    /// True if the kernel has found an FPU.
    pub has_fpu: bool,
    /// Its memory.
    pub memory: Memory,
    /// The mounted file systems.
    pub mounts: Vec<Mount>,
    /// Which of the programs that matter are there.
    pub tools: Vec<String>,
    /// Which of the programs that Hop's scripts need are not there.
    pub missing: Vec<String>,
    /// Agents that are there.
    pub agents: Vec<Agent>,
    /// What is where Hop's own files should be, and somebody other than root can have made: nothing to run, read or write.
    pub foreign: Vec<PathBuf>,
    /// Directories that a boot hook of DD-WRT names as an agent's, whether they are there or not.
    pub homes: Vec<PathBuf>,
    /// Where something can be mounted in a DD-WRT, and others than root can write.
    pub open: Vec<PathBuf>,
    /// True if a guard stands by: another enrolment is under way, or will be undone.
    pub is_guarded: bool,
    /// The target of the programs there; `None` if the survey cannot tell.
    pub target: Option<elf::Target>,
}

impl Survey {
    /// Reads what [`SCRIPT`] printed.
    pub fn parse(output: &[u8]) -> Self {
        let (text, binary) = split_binary(output);
        // Much of it ends up on the user's terminal.
        let text = printable_lines(&String::from_utf8_lossy(text)).into_owned();
        let section = |name: &str| -> &str {
            let start = format!("@{name}\n");
            let begins = if text.starts_with(&start) {
                Some(0)
            } else {
                text.find(&format!("\n{start}")).map(|at| at + 1)
            };
            let rest = begins.map_or("", |at| &text[at + start.len()..]);
            let end = if rest.starts_with('@') { Some(0) } else { rest.find("\n@").map(|at| at + 1) };
            &rest[..end.unwrap_or(rest.len())]
        };
        let uname: Vec<_> = section("uname").split_whitespace().collect();
        let tools: Vec<String> = section("tools").lines().map(str::to_owned).collect();
        let has = |tool: &str| tools.iter().any(|one| one == tool);
        let is_dd_wrt =
            section("system").trim() == "DD-WRT" || (has("nvram") && section("openwrt").is_empty());
        // Before 7.14 RutOS has a writable `/`, as OpenWrt has, and is one for our purposes.
        let is_rut_os =
            has("mnf_info") && section("opkg").lines().any(|line| line.trim() == "dest root /usr/local");
        let flavour = match () {
            () if is_dd_wrt => Flavour::DdWrt,
            () if is_rut_os => Flavour::RutOs,
            () if !section("openwrt").is_empty() => Flavour::OpenWrt,
            () => Flavour::Other,
        };
        let cpu = value(section("cpuinfo"), "cpu model", ':').unwrap_or_default();
        let [meminfo, min_free, overcommit] =
            ["meminfo", "min_free_kbytes", "overcommit_memory"].map(section);
        Self {
            is_root: section("user").trim() == "0",
            // `uname -mrs` prints system, release, machine.
            kernel: uname.get(1).copied().unwrap_or_default().to_owned(),
            machine: uname.get(2).copied().unwrap_or_default().to_owned(),
            flavour,
            firmware: firmware(section("openwrt"), section("os-release"), section("version"), flavour),
            init: printable(section("init").trim()).into_owned(),
            cpu: cpu.split("  ").next().unwrap_or_default().to_owned(),
            has_fpu: cpu.contains("FPU"),
            memory: Memory::parse(meminfo, min_free, overcommit),
            mounts: mounts(section("mounts"), section("df")),
            missing: section("missing").lines().map(str::to_owned).collect(),
            agents: section("agent").lines().filter_map(agent).collect(),
            foreign: section("foreign").lines().map(PathBuf::from).collect(),
            homes: section("homes").lines().map(PathBuf::from).collect(),
            open: section("open").lines().map(PathBuf::from).collect(),
            is_guarded: !section("guard").is_empty(),
            target: target(binary),
            tools,
        }
    }

    /// True if this program is there.
    pub fn has(&self, tool: &str) -> bool {
        self.tools.iter().any(|one| one == tool)
    }

    /// The file system that holds `path`: the last one mounted on the longest part of it.
    pub fn mount_of(&self, path: &Path) -> Option<&Mount> {
        let holding = self.mounts.iter().filter(|mount| path.starts_with(&mount.place));
        // Of several with the same length the last is on top, which is what max_by_key gives.
        holding.max_by_key(|mount| mount.place.components().count())
    }

    /// The file system that what is written to `mount` ends up on: below an overlay of OpenWrt it is another one. `None`
    /// if that is nowhere but in RAM, as it is where OpenWrt could not mount its flash.
    pub fn backing<'a>(&'a self, mount: &'a Mount) -> Option<&'a Mount> {
        let is_overlay = |kind: &str| matches!(kind, "overlay" | "overlayfs");
        let mount = if is_overlay(&mount.kind) {
            let flash = self.mount_of(Path::new("/overlay"))?;
            Some(flash).filter(|flash| flash.place == Path::new("/overlay") && !is_overlay(&flash.kind))?
        } else {
            mount
        };
        Some(mount).filter(|mount| !mount.is_in_ram())
    }

    /// Refuses a router on which somebody other than root has put something where Hop's own should be.
    ///
    /// # Errors
    /// [`Error::Foreign`].
    pub fn check_foreign(&self, host: &str) -> Result<(), Error> {
        let Some(path) = self.foreign.first() else { return Ok(()) };
        Err(Error::Foreign { host: host.to_owned(), path: path.clone() })
    }

    /// True if its own programs are for 64-bit MIPS.
    pub fn is_mips64(&self) -> bool {
        self.target.is_some_and(|target| target.machine == 8 && target.class == 2)
    }

    /// Two lines of text for the user.
    pub fn describe(&self) -> [String; 2] {
        let endian = match self.target {
            Some(elf::Target { data: 2, .. }) => "big endian",
            Some(elf::Target { data: 1, .. }) => "little endian",
            _ => "unknown endianness",
        };
        let fpu = if self.has_fpu { "FPU" } else { "no FPU" };
        let tmp = self.mount_of(Path::new("/tmp")).map_or_else(
            || "/tmp is not mounted".to_owned(),
            |mount| {
                let flags: Vec<_> =
                    ["nosuid", "nodev", "noexec"].into_iter().filter(|flag| mount.has(flag)).collect();
                let flags = if flags.is_empty() { String::new() } else { format!(" ({})", flags.join(", ")) };
                match mount.size {
                    Some((total, free)) if total > 0 => {
                        format!("/tmp {}{flags}, {} of {} free", mount.kind, Size(free), Size(total))
                    }
                    _ => format!("/tmp {}{flags}, without a limit", mount.kind),
                }
            },
        );
        let promises = match self.memory.least() < self.memory.available {
            true => ", because its kernel promises no more (vm.overcommit_memory is 2)",
            false => "",
        };
        let package_manager =
            ["opkg", "apk"].into_iter().find(|tool| self.has(tool)).unwrap_or("no package manager");
        [
            format!(
                "{}, {} ({endian}, {fpu}), Linux {}, {} of {} RAM available{promises}",
                self.firmware,
                if self.cpu.is_empty() { &self.machine } else { &self.cpu },
                self.kernel,
                Size(self.memory.least()),
                Size(self.memory.total)
            ),
            format!("{tmp}; init is {}; {package_manager}", self.init),
        ]
    }
}

/// The text, and the bytes after the line `@elf`.
fn split_binary(output: &[u8]) -> (&[u8], &[u8]) {
    const MARK: &[u8] = b"\n@elf\n";
    match output.windows(MARK.len()).position(|window| window == MARK) {
        Some(at) => (&output[..=at], &output[at + MARK.len()..]),
        None => (output, &[]),
    }
}

/// The value of the first line `key separator value`.
fn value<'a>(text: &'a str, key: &str, separator: char) -> Option<&'a str> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(separator));
    pairs.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().trim_matches(['"', '\'']))
}

/// Bytes, from a number of kibibytes.
fn bytes(kibibytes: &str) -> Option<u64> {
    kibibytes.parse::<u64>().ok().map(|number| number.saturating_mul(1024))
}

/// The firmware's own name, from the first of the files that have one.
fn firmware(openwrt: &str, os_release: &str, version: &str, flavour: Flavour) -> String {
    let version = version.lines().next().unwrap_or_default();
    match flavour {
        Flavour::RutOs => format!("RutOS {version}"),
        Flavour::DdWrt => format!("DD-WRT {version}").trim_end().to_owned(),
        Flavour::OpenWrt | Flavour::Other => value(openwrt, "DISTRIB_DESCRIPTION", '=')
            .or_else(|| value(os_release, "PRETTY_NAME", '='))
            .unwrap_or(flavour.name())
            .to_owned(),
    }
}

fn mounts(mounts: &str, df: &str) -> Vec<Mount> {
    // Filesystem, 1024-blocks, used, available, capacity, mounted on (POSIX df -P).
    let size_of = |place: &str| {
        let line = df.lines().rfind(|line| line.split_whitespace().nth(5) == Some(place))?;
        let number = |at| bytes(line.split_whitespace().nth(at)?);
        Some((number(1)?, number(3)?))
    };
    let mount = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let place = fields.next()?;
        let kind = fields.next()?.to_owned();
        let options = fields.next()?.split(',').map(str::to_owned).collect();
        Some(Mount { place: place.into(), kind, options, size: size_of(place) })
    };
    mounts.lines().filter_map(mount).collect()
}

/// The target in an ELF header (elf(5)): EI_CLASS, EI_DATA, and e_machine in that byte order.
fn target(header: &[u8]) -> Option<elf::Target> {
    let header = header.first_chunk::<20>().filter(|header| header.starts_with(b"\x7fELF"))?;
    let machine = [header[18], header[19]];
    let machine = if header[5] == 2 { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) };
    Some(elf::Target { class: header[4], data: header[5], machine })
}

fn agent(line: &str) -> Option<Agent> {
    let mut words = line.split(' ');
    let (path, size) = (words.next()?, words.next()?.parse().ok()?);
    let is_digest = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some(Agent { path: path.into(), size, digest: words.next().filter(is_digest).map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrolment::suitability::{MEMORY_TO_SPARE, Unsupported};
    use crate::program::embedded::Arch;

    /// An ELF header as `dd` gives it: class, byte order, machine.
    fn header(class: u8, data: u8, machine: u8) -> Vec<u8> {
        let mut header = vec![0; 52];
        header[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, data]);
        header[if data == 2 { 19 } else { 18 }] = machine;
        header
    }

    fn survey(text: &str, header: &[u8]) -> Survey {
        Survey::parse(&[text.as_bytes(), b"@elf\n", header].concat())
    }

    /// The answers of an OpenWrt, shortened.
    const OPENWRT: &str = "@user\n0\n@uname\nLinux 5.15.167 mips\n@system\nGNU/Linux\n@openwrt\nDISTRIB_ID='OpenWrt'\n\
        DISTRIB_DESCRIPTION='OpenWrt 22.03.5'\n@os-release\n@version\n@opkg\ndest root /\n@init\nprocd\n@cpuinfo\n\
        cpu model\t\t: MIPS 24Kc V7.4\n@meminfo\nMemTotal: 58004 kB\nMemFree: 50000 kB\nMemAvailable: 38000 kB\n@min_free_kbytes\n8192\n@overcommit_memory\n0\n@mounts\n\
        /dev/root /rom squashfs ro,relatime 0 0\n/dev/mtdblock1 /overlay jffs2 rw,noatime 0 0\n\
        overlayfs:/overlay / overlay rw,noatime 0 0\ntmpfs /tmp tmpfs rw,nosuid,nodev,noatime 0 0\n@df\n\
        Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/mtdblock1 2944 200 2744 7% /overlay\n\
        overlayfs:/overlay 2944 200 2744 7% /\ntmpfs 29004 4 29000 0% /tmp\n@tools\nprocd\nopkg\nsha256sum\n@guard\n@agent\n";

    /// The answers of a DD-WRT with a disk, shortened: no MemAvailable, strict overcommit, /tmp without a size.
    const DD_WRT: &str = "@user\n0\n@uname\nLinux 3.10.108-d10 mips\n@system\nDD-WRT\n@openwrt\n@os-release\n@version\n@opkg\n\
        @init\ninit\n@cpuinfo\ncpu model\t\t: MIPS 74Kc V4.9\n@meminfo\nMemTotal: 58004 kB\nMemFree: 47000 kB\nCommitLimit: 46400 kB\nCommitted_AS: 6400 kB\n\
        @min_free_kbytes\n4096\n@overcommit_memory\n2\n@mounts\nrootfs / rootfs rw 0 0\nramfs /tmp ramfs rw,relatime 0 0\n/dev/sda1 /tmp/mnt/sda1 ext2 rw,relatime 0 0\n@df\n\
        /dev/sda1 61000 14 58000 0% /tmp/mnt/sda1\n@tools\nnvram\nmd5sum\n@guard\n@homes\n/tmp/mnt/sda1/hop\n@agent\n/tmp/mnt/sda1/hop/hopd 1234567\n@foreign\n/tmp/hop\n@open\n/tmp/mnt/sdb1\n";

    const SIZE: fn(Arch) -> u64 = |_| 1_860_000;

    #[test]
    fn openwrt_survey_is_parsed() {
        let survey = survey(OPENWRT, &header(1, 2, 8));
        assert_eq!((survey.flavour, survey.firmware.as_str()), (Flavour::OpenWrt, "OpenWrt 22.03.5"));
        assert_eq!(survey.agent_for(SIZE), Ok(Arch::Mips));
        assert_eq!(survey.memory.least(), (50000 - 8192) * 1024);
        assert_eq!((survey.agents.len(), survey.is_guarded, survey.has_fpu), (0, false, false));
        let flash = survey.mount_of(Path::new("/overlay/upper"));
        assert_eq!(flash.and_then(|mount| mount.size), Some((2944 * 1024, 2744 * 1024)));
        assert!(
            survey.describe()[0].contains("MIPS 24Kc V7.4 (big endian, no FPU)"),
            "{:?}",
            survey.describe()
        );
    }

    #[test]
    fn dd_wrt_survey_is_parsed() {
        let survey = survey(DD_WRT, &header(1, 1, 8));
        assert_eq!((survey.flavour, survey.agent_for(SIZE)), (Flavour::DdWrt, Ok(Arch::Mipsle)));
        assert_eq!(survey.memory.available, (47000 - 4096) * 1024);
        assert_eq!(survey.memory.promisable, Some(40000 * 1024));
        let bound = "39.0 MiB of 56.6 MiB RAM available, because its kernel promises no more (vm.overcommit_memory is 2)";
        assert!(survey.describe()[0].ends_with(bound), "{:?}", survey.describe());
        let agent = Agent { path: "/tmp/mnt/sda1/hop/hopd".into(), size: 1_234_567, digest: None };
        assert_eq!(survey.agents, [agent]);
        assert_eq!(survey.homes, [Path::new("/tmp/mnt/sda1/hop")]);
        assert_eq!(survey.foreign, [Path::new("/tmp/hop")]);
        assert_eq!(survey.open, [Path::new("/tmp/mnt/sdb1")]);
        assert!(survey.describe()[1].starts_with("/tmp ramfs, without a limit"), "{:?}", survey.describe());
    }

    #[test]
    fn agent_has_size_and_digest() {
        let digest = "0123456789abcdef".repeat(4);
        let said = |line: &str| survey(&format!("{OPENWRT}{line}\n"), b"").agents;
        let agent = Agent { path: "/usr/sbin/hopd".into(), size: 7, digest: Some(digest.clone()) };
        assert_eq!(said(&format!("/usr/sbin/hopd 7 {digest}")), [agent]);
        for wrong in ["/usr/sbin/hopd", "/usr/sbin/hopd hopd 0.1.0", "/usr/sbin/hopd -1 0"] {
            assert_eq!(said(wrong), [], "{wrong}");
        }
        assert_eq!(said("/usr/sbin/hopd 7 0123\u{1b}[2J")[0].digest, None);
    }

    #[test]
    fn strict_overcommit_limits_an_agent() {
        let survey = survey(&DD_WRT.replace("Committed_AS: 6400", "Committed_AS: 40000"), &header(1, 1, 8));
        let needed = SIZE(Arch::Mipsle) + MEMORY_TO_SPARE;
        assert_eq!(survey.agent_for(SIZE), Err(Unsupported::NoPromise { needed, available: 6400 * 1024 }));
    }

    #[test]
    fn impossible_sizes_are_parsed() {
        let survey =
            survey(&OPENWRT.replace("29004 4 29000", &format!("{0} 4 {0}", u64::MAX)), &header(1, 2, 8));
        let tmp = survey.mount_of(Path::new("/tmp"));
        assert_eq!(tmp.and_then(|tmp| tmp.size), Some((u64::MAX, u64::MAX)));
    }

    #[test]
    fn unsupported_routers_are_refused() {
        let mips = header(1, 2, 8);
        let refused = |text: &str, header: &[u8]| survey(text, header).agent_for(SIZE).err();
        let changed = |from: &str, to: &str| OPENWRT.replace(from, to);
        assert_eq!(refused(&changed("@user\n0", "@user\n1000"), &mips), Some(Unsupported::NotRoot));
        assert_eq!(
            refused(OPENWRT, &header(1, 1, 40)),
            Some(Unsupported::NotMips("ARM, 32 bits, little endian".into()))
        );
        assert_eq!(refused(OPENWRT, b""), Some(Unsupported::NotMips("mips".into())));
        assert_eq!(
            refused(&changed("5.15.167", "2.6.24"), &mips),
            Some(Unsupported::OldKernel { kernel: "2.6.24".into(), flavour: Flavour::OpenWrt })
        );
        assert_eq!(refused(&changed("nosuid,nodev", "nosuid,noexec"), &mips), Some(Unsupported::NoExec));
        assert_eq!(
            refused(&changed("/tmp tmpfs", "/tmp ext4"), &mips),
            Some(Unsupported::NotInRam("ext4".into()))
        );
        let full = changed("29004 4 29000", "29004 28000 1004");
        assert_eq!(refused(&full, &mips), Some(Unsupported::NoRoom { needed: 1_860_000, free: 1004 * 1024 }));
        assert!(matches!(
            refused(&changed("50000 kB", "19000 kB"), &mips),
            Some(Unsupported::NoMemory { .. })
        ));
        assert!(survey(&changed("@guard\n", "@guard\n/tmp/hop-1/guard\n"), &mips).is_guarded);
    }
}
