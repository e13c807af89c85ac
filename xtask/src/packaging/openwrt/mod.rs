//! The agent for OpenWrt: a package for opkg for each byte order, and a feed for OpenWrt's own build system.
//!
//! **Invariants:** the init script, the settings and the list of what a firmware upgrade keeps are those that `hop router add` installs;
//! both kinds of package have the same files with the same modes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::archive::{self, Tree};
use super::{Input, VERSION};
use crate::build::agents::AGENTS;
use crate::paths;

/// Counts the packages of one version.
const RELEASE: &str = "r1";

/// What OpenWrt calls the CPU that its images for most routers are built for. An agent runs on each MIPS32r2 CPU.
const CPU: &str = "24kc";

const SUMMARY: &str = "Agent of Hop, which runs Go programs in RAM";

const DESCRIPTION: &str = "  hopd receives programs from an authorized hop over the network, runs them in
  RAM, and removes what they leave. It listens on br-lan, port 4670. It lets
  nobody in before `hop router add`, or a line in /etc/hopd/authorized.";

/// What opkg does not replace if the user has changed it.
const CONFFILES: &str = "/etc/config/hopd";

/// Where the packaged agent listens: a router's own network. Enrolment takes the interface that ssh came in by, which is not known here.
const LISTEN: &str = "0.0.0.0:4670";
const DEVICE: &str = "br-lan";

const INIT_SCRIPT: &str = include_str!("../../../../controller/src/enrolment/files/hopd.init");
const CONFIGURATION: &str = include_str!("../../../../controller/src/enrolment/files/hopd.config");

/// What a firmware upgrade keeps, as in place.sh of the enrolment.
const KEEP: &str = "\
/lib/upgrade/keep.d/hopd
/usr/sbin/hopd
/etc/init.d/hopd
/etc/rc.d/S95hopd
/etc/rc.d/K05hopd
/etc/config/hopd
/etc/hopd/
";

/// As OpenWrt's build system writes it for each package: it enables and starts the service.
const POST_INSTALL: &str = "\
#!/bin/sh
[ \"${IPKG_NO_SCRIPT}\" = \"1\" ] && exit 0
[ -s ${IPKG_INSTROOT}/lib/functions.sh ] || exit 0
. ${IPKG_INSTROOT}/lib/functions.sh
default_postinst $0 $@
";

/// The same: it stops and disables the service.
const PRE_REMOVE: &str = "\
#!/bin/sh
[ -s ${IPKG_INSTROOT}/lib/functions.sh ] || exit 0
. ${IPKG_INSTROOT}/lib/functions.sh
default_prerm $0 $@
";

/// Makes `hopd_*.ipk` for each byte order, and the directory `openwrt-feed`. Returns the packages and the files of the feed.
pub fn pack(input: &Input, to: &Path) -> Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    let mut agents = Vec::new();
    for agent in &AGENTS {
        let path = agent.path();
        let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        made.push(ipk(agent.name, &content, input.epoch, to)?);
        agents.push((agent.name, content));
    }
    made.extend(feed(&agents, &input.licences, to)?);
    Ok(made)
}

fn configuration() -> String {
    let lines = CONFIGURATION.lines().filter(|line| !line.contains("'CACHE_DIR'"));
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    text.replace("LISTEN", LISTEN).replace("DEVICE", DEVICE)
}

/// A package for opkg: a tar archive of a version, a tar archive about the package, and one of its files, all compressed by gzip.
fn ipk(arch: &str, agent: &[u8], epoch: u64, to: &Path) -> Result<PathBuf> {
    let work = paths::root().join(format!("target/packaging/{}-ipk-{arch}", std::process::id()));
    let made = ipk_in(&work, arch, agent, epoch, to);
    // Best effort: the next run makes another one.
    let _ = fs::remove_dir_all(&work);
    made
}

fn ipk_in(work: &Path, arch: &str, agent: &[u8], epoch: u64, to: &Path) -> Result<PathBuf> {
    let data = Tree::new(work.join("data"))?;
    data.add("usr/sbin/hopd", 0o755, agent)?;
    data.add("etc/init.d/hopd", 0o755, INIT_SCRIPT)?;
    data.add("etc/config/hopd", 0o600, configuration())?;
    data.add("lib/upgrade/keep.d/hopd", 0o644, KEEP)?;
    data.add_directory("etc/hopd", 0o700)?;

    let control = Tree::new(work.join("control"))?;
    let fields = format!(
        "Package: hopd\nVersion: {VERSION}-{RELEASE}\nLicense: MIT OR Apache-2.0\nSection: utils\n\
         Maintainer: The Hop developers\nArchitecture: {arch}_{CPU}\nInstalled-Size: {}\nDescription: {SUMMARY}\n{DESCRIPTION}\n",
        data.size()?
    );
    control.add("control", 0o644, fields)?;
    control.add("conffiles", 0o644, format!("{CONFFILES}\n"))?;
    control.add("postinst", 0o755, POST_INSTALL)?;
    control.add("prerm", 0o755, PRE_REMOVE)?;

    let package = Tree::new(work.join("package"))?;
    package.add("debian-binary", 0o644, "2.0\n")?;
    archive::tar_gz(control.root(), &["."], epoch, &package.root().join("control.tar.gz"))?;
    archive::tar_gz(data.root(), &["."], epoch, &package.root().join("data.tar.gz"))?;
    let path = to.join(format!("hopd_{VERSION}-{RELEASE}_{arch}_{CPU}.ipk"));
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    // In this order, because opkg reads the first two before it unpacks the third.
    archive::tar_gz(package.root(), &["./debian-binary", "./control.tar.gz", "./data.tar.gz"], epoch, &path)?;
    Ok(path)
}

/// The directory of the package for OpenWrt's build system.
fn feed(agents: &[(&str, Vec<u8>)], licences: &str, to: &Path) -> Result<Vec<PathBuf>> {
    let feed = Tree::new(to.join("openwrt-feed"))?;
    let makefile = include_str!("Makefile")
        .replace("VERSION\n", &format!("{VERSION}\n"))
        .replace("RELEASE\n", &format!("{}\n", RELEASE.trim_start_matches('r')))
        .replace("SUMMARY", SUMMARY)
        .replace("DESCRIPTION", DESCRIPTION)
        .replace("CONFFILES", CONFFILES);
    feed.add("hopd/Makefile", 0o644, makefile)?;
    for (arch, content) in agents {
        feed.add(&format!("hopd/files/hopd-{arch}"), 0o755, content)?;
    }
    feed.add("hopd/files/hopd.init", 0o755, INIT_SCRIPT)?;
    feed.add("hopd/files/hopd.config", 0o644, configuration())?;
    feed.add("hopd/files/hopd.keep", 0o644, KEEP)?;
    feed.add("hopd/files/LICENSES.txt", 0o644, licences)?;
    let directory = feed.root().join("hopd");
    Ok([archive::files(&directory)?, archive::files(&directory.join("files"))?].concat())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    /// What there is below a directory: path, kind and mode, and bytes.
    fn listing(root: &Path) -> Vec<(String, u32, Vec<u8>)> {
        fn visit(root: &Path, path: &Path, found: &mut Vec<(String, u32, Vec<u8>)>) {
            let mut entries: Vec<_> =
                fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
            entries.sort();
            for entry in entries {
                let mode = entry.symlink_metadata().unwrap().permissions().mode();
                let content = if entry.is_file() { fs::read(&entry).unwrap() } else { Vec::new() };
                found.push((entry.strip_prefix(root).unwrap().display().to_string(), mode, content));
                if entry.is_dir() {
                    visit(root, &entry, found);
                }
            }
        }
        let mut found = Vec::new();
        visit(root, root, &mut found);
        found
    }

    fn unpack(archive: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--preserve-permissions", "--file"]).arg(archive).arg("--directory").arg(to);
        assert!(tar.status().unwrap().success());
    }

    #[test]
    fn agent_package_has_format_of_opkg() {
        let directory = tempfile::tempdir().unwrap();
        let path = ipk_in(&directory.path().join("work"), "mips", b"agent", 1_700_000_000, directory.path())
            .unwrap();
        assert_eq!(path.file_name().unwrap().to_str().unwrap(), format!("hopd_{VERSION}-r1_mips_24kc.ipk"));
        let listed = |archive: &Path| {
            let listed = Command::new("tar")
                .args(["--list", "--verbose", "--gzip", "--full-time", "--utc", "--file"])
                .arg(archive)
                .output();
            String::from_utf8(listed.unwrap().stdout).unwrap()
        };
        let outer = listed(&path);
        let names: Vec<_> = outer.lines().map(|line| line.split(' ').next_back().unwrap()).collect();
        assert_eq!(names, ["./debian-binary", "./control.tar.gz", "./data.tar.gz"]);
        let unpacked = directory.path().join("unpacked");
        unpack(&path, &unpacked);
        assert_eq!(fs::read_to_string(unpacked.join("debian-binary")).unwrap(), "2.0\n");
        for archive in ["control.tar.gz", "data.tar.gz"] {
            let lines = listed(&unpacked.join(archive));
            assert!(
                lines.lines().all(|line| line.contains(" 0/0 ") && line.contains("2023-11-14 22:13:20")),
                "{lines}"
            );
        }
        unpack(&unpacked.join("control.tar.gz"), &directory.path().join("control"));
        let control = fs::read_to_string(directory.path().join("control/control")).unwrap();
        for field in ["Package: hopd", "Architecture: mips_24kc", "Description: Agent of Hop"] {
            assert!(control.lines().any(|line| line.starts_with(field)), "{control}");
        }
        assert_eq!(
            fs::read_to_string(directory.path().join("control/conffiles")).unwrap(),
            "/etc/config/hopd\n"
        );
    }

    #[test]
    fn agent_package_is_built_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let build = |name: &str| {
            let work = directory.path().join(name).join("work");
            let path =
                ipk_in(&work, "mipsel", &[7; 100_000], 1_700_000_000, &directory.path().join(name)).unwrap();
            fs::read(path).unwrap()
        };
        let first = build("one");
        // The files of the second are made at another time, which no archive may have.
        for path in ["one/work/data/usr/sbin/hopd", "one/work/control/control"] {
            let file = fs::File::open(directory.path().join(path)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }
        assert!(first == build("another directory"));
    }

    #[test]
    fn feed_installs_files_of_package() {
        let directory = tempfile::tempdir().unwrap();
        let agents = [("mips", b"big".to_vec()), ("mipsel", b"little".to_vec())];
        feed(&agents, "licences", directory.path()).unwrap();
        // What these files of OpenWrt define and the recipe uses, with its modes.
        let top = directory.path().join("openwrt");
        fs::create_dir_all(top.join("include")).unwrap();
        fs::write(
            top.join("rules.mk"),
            "INCLUDE_DIR=$(TOPDIR)/include\nINSTALL_DIR=install -d -m0755\nINSTALL_BIN=install -m0755\n\
             INSTALL_DATA=install -m0644\nINSTALL_CONF=install -m0600\n",
        )
        .unwrap();
        let build_package =
            "define BuildPackage\n.PHONY: all\nall:\n\t$(call Package/$(1)/install,$(DESTDIR))\nendef\n";
        fs::write(top.join("include/package.mk"), build_package).unwrap();
        for (arch, agent) in &agents {
            let installed = directory.path().join(format!("installed-{arch}"));
            let mut make = Command::new("make");
            make.arg("--directory").arg(directory.path().join("openwrt-feed/hopd"));
            make.arg(format!("TOPDIR={}", top.display())).arg(format!("ARCH={arch}"));
            let made = make.arg(format!("DESTDIR={}", installed.display())).output().unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            let work = directory.path().join("work");
            let path = ipk_in(&work, arch, agent, 0, directory.path()).unwrap();
            let unpacked = directory.path().join(format!("unpacked-{arch}"));
            unpack(&path, &unpacked);
            unpack(&unpacked.join("data.tar.gz"), &unpacked.join("data"));
            assert_eq!(listing(&installed), listing(&unpacked.join("data")));
        }
    }

    #[test]
    fn upgrades_keep_files_of_enrolment() {
        let script = include_str!("../../../../controller/src/enrolment/scripts/place.sh");
        let list =
            script.lines().find_map(|line| line.trim().strip_prefix("for file in \"$keep\" ")).unwrap();
        let list = list.strip_suffix("; do").unwrap().replace("\"$program\"", "/usr/sbin/hopd");
        let kept: Vec<_> = KEEP.lines().collect();
        let expected: Vec<_> = std::iter::once("/lib/upgrade/keep.d/hopd").chain(list.split(' ')).collect();
        assert_eq!(kept, expected);
    }

    #[test]
    fn packaged_settings_have_no_placeholder() {
        let text = configuration();
        assert_eq!(
            text,
            "config hopd 'main'\n\toption listen '0.0.0.0:4670'\n\toption dir '/tmp/hop'\n\toption device 'br-lan'\n"
        );
    }
}
