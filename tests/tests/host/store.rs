//! How many programs an agent caches: on a disk that survives a reboot, and within the memory that a kernel can commit.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hop_tests::{Target, fixture, wait_until};

use crate::agent::{Agent, Bench};

/// A path on this machine, seen from where the agent with this number sees it.
fn seen(agent: u32, path: &Path) -> PathBuf {
    format!("/proc/{agent}/root{}", path.display()).into()
}

/// The blobs in a disk cache, as the agent sees it.
fn kept(agent: u32, shelf: &Path) -> BTreeSet<String> {
    fs::read_dir(seen(agent, shelf))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn disk_cache_survives_a_restart() {
    let bench = Bench::new();
    let shelf = bench.path("shelf");
    fs::create_dir(&shelf).unwrap();
    let program = fixture(Target::Host, "both-outputs");
    let words = ["--cache-dir", shelf.to_str().unwrap(), "--log", "log"];
    for life in 0..3 {
        let mut agent = bench.start(&words);
        let ran = bench.exec(&mut agent, &program);
        assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("out\n", "err\n", 7));
        let taken = bench.read("log").matches("program copied from the disk cache").count();
        assert_eq!(taken, life);
        wait_until("the program is kept", || {
            let names = kept(agent.process.id(), &shelf);
            names.len() == 1 && names.iter().all(|name| name.len() == 64)
        });
        agent.stop();
        assert!(!bench.path("ram").exists());
    }
}

#[test]
fn missing_disk_cache_is_logged_once() {
    let bench = Bench::new();
    let shelf = bench.path("shelf");
    let mut agent = bench.start(&["--cache-dir", shelf.to_str().unwrap(), "--log", "log"]);
    for _ in 0..2 {
        assert_eq!(bench.exec(&mut agent, &fixture(Target::Host, "both-outputs")).code, 7);
    }
    assert_eq!(bench.read("log").matches("the disk cache is unavailable").count(), 1);
    fs::create_dir(&shelf).unwrap();
    assert_eq!(bench.exec(&mut agent, &fixture(Target::Host, "both-outputs")).code, 7);
    assert!(bench.read("log").contains("the disk cache is available again"));
    agent.stop();
}

#[test]
fn disk_cache_evicts_least_recently_used() {
    let bench = Bench::new();
    let shelf = bench.path("shelf");
    fs::create_dir(&shelf).unwrap();
    let content = fs::read(fixture(Target::Host, "both-outputs")).unwrap();
    // Space for four programs, half of which must stay free. A tmpfs cannot be a disk cache, but an overlay on one has
    // its size.
    let script = format!(
        "mkdir medium; mount -t tmpfs -o size={} none medium; mkdir medium/lower medium/upper medium/work
        mount -t overlay -o lowerdir=medium/lower,upperdir=medium/upper,workdir=medium/work none shelf
        exec \"$@\"",
        content.len() * 4
    );
    let mut agent =
        bench.start_in_namespace(&script, &["--cache-dir", shelf.to_str().unwrap(), "--log", "log"]);
    let number = agent.process.id();
    let mut exec = |program: u8| {
        let path = bench.path(&format!("program-{program}"));
        fs::write(&path, [&content[..], &[program]].concat()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(bench.exec(&mut agent, &path).code, 7);
    };
    let run = |exec: &mut dyn FnMut(u8), program: u8| {
        let before = kept(number, &shelf);
        exec(program);
        let new = || kept(number, &shelf).difference(&before).cloned().collect::<Vec<_>>();
        wait_until("the program is kept", || new().iter().any(|name| name.len() == 64));
        new().remove(0)
    };
    let names = [1, 2, 3].map(|program| run(&mut exec, program));
    let used = || seen(number, &shelf).join(&names[0]).metadata().unwrap().modified().unwrap();
    let before = used();
    exec(1);
    wait_until("the first is used again", || used() > before);
    let last = run(&mut exec, 4);
    let expected = BTreeSet::from([names[0].clone(), names[2].clone(), last]);
    assert_eq!(kept(number, &shelf), expected, "the second went, and no other");
    agent.stop();
}

/// An agent on a ramfs, of a router whose kernel says this of its memory.
fn start_on_ramfs(bench: &Bench, free: u64, promisable: Option<u64>) -> Agent {
    // As Linux 3.10: no MemAvailable. Of 30 MiB of cache, 20 are files in the ramfs, and of the other 10 half can be dropped.
    let meminfo = format!(
        "MemTotal: 60000 kB\nMemFree: {} kB\nBuffers: 0 kB\nCached: 30720 kB\nActive(file): 2048 kB\n\
         Inactive(file): 8192 kB\nUnevictable: 20480 kB\nCommitLimit: {} kB\nCommitted_AS: 6000 kB\n",
        free >> 10,
        (promisable.unwrap_or(0) >> 10) + 6000
    );
    let overcommit = if promisable.is_some() { "2\n" } else { "0\n" };
    let files = [
        ("meminfo", meminfo.as_str()),
        ("vm/min_free_kbytes", "4096\n"),
        ("vm/overcommit_memory", overcommit),
    ];
    for directory in ["ram", "vm"] {
        fs::create_dir_all(bench.path(directory)).unwrap();
    }
    for (name, text) in files {
        fs::write(bench.path(name), text).unwrap();
    }
    let script = "mount -t ramfs -o mode=0700 none ram; mount --bind meminfo /proc/meminfo; for file in vm/*; do \
        mount --bind $file /proc/sys/$file; done; exec \"$@\"";
    bench.start_in_namespace(script, &[])
}

/// A program that has so many bytes.
fn program_of(bench: &Bench, bytes: u64) -> PathBuf {
    let large = bench.path("large");
    fs::copy(fixture(Target::Host, "both-outputs"), &large).unwrap();
    fs::OpenOptions::new().append(true).open(&large).unwrap().set_len(bytes).unwrap();
    large
}

#[test]
fn ramfs_is_bounded_by_memory_alone() {
    let bench = Bench::new();
    let program = fixture(Target::Host, "both-outputs");
    for (free, fits) in [(48 << 20, true), (9 << 20, false)] {
        let mut agent = start_on_ramfs(&bench, free, None);
        let info = bench.info(&mut agent);
        assert_eq!(
            info["memory_available"],
            free + (5 << 20) - (4 << 20),
            "down to the kernel's lowest watermark"
        );
        assert_eq!(info["store_free"], free + (1 << 20) - (8 << 20), "8 MiB stay free");
        if fits {
            let ran = bench.exec(&mut agent, &program);
            assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("out\n", "err\n", 7));
        } else {
            bench.exec(&mut agent, &program_of(&bench, 3 << 20)).assert_fails(125, "of memory to spare");
        }
        agent.stop();
    }
}

#[test]
fn strict_overcommit_bounds_programs() {
    let bench = Bench::new();
    let mut agent = start_on_ramfs(&bench, 48 << 20, Some(20 << 20));
    let info = bench.info(&mut agent);
    // Less an arena of Go's.
    assert_eq!(info["memory_available"], 16 << 20);
    assert_eq!(info["memory_bound_by_promises"], true);
    let ran = bench.exec(&mut agent, &fixture(Target::Host, "environment"));
    let limit = format!("GOMEMLIMIT={}", 8 << 20);
    assert!(ran.stdout().split('\0').any(|variable| variable == limit), "{}", ran.stdout());
    let ran = bench.exec(&mut agent, &program_of(&bench, 9 << 20));
    ran.assert_fails(125, "the router's kernel promises 8.0 MiB of memory more");
    assert!(ran.stderr().contains("hint: on DD-WRT: nvram set vm.overcommit_memory=0"), "{}", ran.stderr());
    agent.stop();
}
