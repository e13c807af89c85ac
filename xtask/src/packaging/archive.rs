//! Trees of files, and the archives of them: tarballs, Debian packages, OpenWrt packages.
//!
//! **Invariants:** neither the umask, nor the user, nor the order of a directory, nor the time is in an archive.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::command::{line, run};

/// A directory that becomes an archive.
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// An empty one.
    pub fn new(root: PathBuf) -> Result<Self> {
        empty_directory(&root)?;
        Ok(Self { root })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Adds a file, with the directories above it.
    pub fn add(&self, name: &str, mode: u32, content: impl AsRef<[u8]>) -> Result<()> {
        let path = self.root.join(name);
        let failed = || format!("cannot write {}", path.display());
        let above: Vec<_> =
            Path::new(name).ancestors().skip(1).filter(|above| *above != Path::new("")).collect();
        for directory in above.into_iter().rev().filter(|above| !self.root.join(above).exists()) {
            self.add_directory(&directory.to_string_lossy(), 0o755)?;
        }
        fs::write(&path, content).with_context(failed)?;
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).with_context(failed)
    }

    /// Adds an empty directory, in one that is there.
    pub fn add_directory(&self, name: &str, mode: u32) -> Result<()> {
        let path = self.root.join(name);
        fs::create_dir(&path)
            .and_then(|()| fs::set_permissions(&path, PermissionsExt::from_mode(mode)))
            .with_context(|| format!("cannot create {}", path.display()))
    }

    /// Adds a copy of a file.
    pub fn copy(&self, name: &str, mode: u32, from: &Path) -> Result<()> {
        self.add(name, mode, fs::read(from).with_context(|| format!("cannot read {}", from.display()))?)
    }

    /// Adds copies of the files in a directory, and not those of directories in it.
    pub fn copy_all(&self, name: &str, from: &Path) -> Result<()> {
        for path in files(from)? {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.copy(&format!("{name}/{file}"), 0o644, &path)?;
        }
        Ok(())
    }

    /// Bytes of all files.
    pub fn size(&self) -> Result<u64> {
        size_of(&self.root)
    }
}

/// The files of a directory, by name.
pub fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("cannot read {}", directory.display()))?;
    paths.retain(|path| path.is_file());
    paths.sort();
    Ok(paths)
}

fn size_of(path: &Path) -> Result<u64> {
    let failed = || format!("cannot look at {}", path.display());
    if !path.is_dir() {
        return Ok(path.metadata().with_context(failed)?.len());
    }
    fs::read_dir(path)
        .with_context(failed)?
        .map(|entry| size_of(&entry.with_context(failed)?.path()))
        .sum::<Result<u64>>()
}

/// Makes a directory, without what an earlier run has left in it.
pub fn empty_directory(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, PermissionsExt::from_mode(0o755)))
        .with_context(|| format!("cannot create {}", path.display()))
}

/// Writes a gzipped tar archive with these members of a directory, as OpenWrt's ipkg-build does: in GNU's format, with owners as
/// numbers, by name.
pub fn tar_gz(directory: &Path, members: &[&str], epoch: u64, to: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--format=gnu", "--numeric-owner", "--owner=0", "--group=0", "--sort=name"])
        .arg(format!("--mtime=@{epoch}"))
        .arg("--directory")
        .arg(directory)
        .args(members)
        .stdout(Stdio::piped());
    let mut tar = tar.spawn().context("cannot run tar")?;
    let content = tar.stdout.take().context("tar has no output")?;
    gzip(content.into(), to)?;
    let status = tar.wait().context("cannot wait for tar")?;
    ensure!(status.success(), "tar of {} failed: {status}", directory.display());
    Ok(())
}

/// Compresses a file as Debian wants documents: without name and time.
pub fn gzipped(path: &Path) -> Result<Vec<u8>> {
    let mut gzip = gzip_command();
    let input = fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let output = gzip.stdin(input).stderr(Stdio::inherit()).output().context("cannot run gzip")?;
    ensure!(output.status.success(), "{} failed: {}", line(&gzip), output.status);
    Ok(output.stdout)
}

fn gzip(input: Stdio, to: &Path) -> Result<()> {
    let output = fs::File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
    run(gzip_command().stdin(input).stdout(output))
}

fn gzip_command() -> Command {
    let mut gzip = Command::new("gzip");
    // Options of the user's would be taken before these.
    gzip.args(["--no-name", "--best", "--stdout"]).env_remove("GZIP");
    gzip
}

/// Writes a Debian package of a tree that has its `DEBIAN` directory.
pub fn deb(tree: &Tree, epoch: u64, to: &Path) -> Result<()> {
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.args(["--root-owner-group", "-Zxz", "--threads-max=1", "--build"]).arg(tree.root()).arg(to);
    // dpkg-deb sorts, and takes no later time than this one.
    set_times(tree.root(), epoch)?;
    run(dpkg.env("SOURCE_DATE_EPOCH", epoch.to_string()).stdout(Stdio::null()))
}

/// Gives all files of a directory one time.
fn set_times(path: &Path, epoch: u64) -> Result<()> {
    if path.is_dir() {
        let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
        for entry in entries {
            set_times(&entry.with_context(|| format!("cannot read {}", path.display()))?.path(), epoch)?;
        }
    }
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(epoch);
    fs::File::open(path)
        .and_then(|file| file.set_modified(time))
        .with_context(|| format!("cannot set the time of {}", path.display()))
}
