//! One instance of a service: its configuration and its process.

use std::borrow::Cow;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit};

use super::Output;
use crate::pid1::spawn;
use crate::procd::json::{Blob, Json, json};
use crate::procd::respawn::Respawn;

/// The time between TERM and KILL, unless `term_timeout` is set.
const TERM_TIMEOUT: Duration = Duration::from_secs(5);
/// Where procd creates a control group for each service, if the kernel has them.
const CGROUPS: &str = "/sys/fs/cgroup";

pub struct Instance {
    pub name: String,
    pub config: Json,
    /// Digest of the files that the configuration names.
    pub files: u64,
    pub respawn: Option<Respawn>,
    pub process: Option<(u32, Instant)>,
    pub exit_code: Option<i32>,
    pub start_at: Option<Instant>,
    pub kill_at: Option<Instant>,
    /// True after TERM; the instance then goes, or restarts with another configuration.
    pub halting: bool,
    pub again: bool,
}

impl Instance {
    pub fn new(name: &str, config: &Json, now: Instant) -> Self {
        let mut instance = Self {
            name: name.to_owned(),
            config: Json::Null,
            files: 0,
            respawn: None,
            process: None,
            exit_code: None,
            start_at: Some(now),
            kill_at: None,
            halting: false,
            again: false,
        };
        instance.configure(config);
        instance
    }

    pub fn configure(&mut self, config: &Json) {
        self.files = files(config);
        self.config = config.clone();
        self.respawn = config
            .get("respawn")
            .map(|values| Respawn::new(&values.items().iter().filter_map(Json::number).collect::<Vec<_>>()));
    }

    /// Applies a configuration: an unchanged process stays, a changed one is restarted or gets its reload signal.
    pub fn update(&mut self, config: &Json, now: Instant) {
        let changed = self.config != *config || self.files != files(config);
        self.configure(config);
        if self.process.is_none() {
            self.halting = false;
            self.start_at = Some(now);
        } else if self.halting {
            self.again = true;
        } else if changed {
            match self.config.get("reload_signal").and_then(Json::number) {
                Some(number) => {
                    spawn::signal(self.pid(), number as i32);
                }
                None => {
                    self.stop(now);
                    self.again = true;
                }
            }
        }
    }

    pub fn stop(&mut self, now: Instant) {
        self.start_at = None;
        self.again = false;
        if self.process.is_some() && !self.halting {
            spawn::signal(self.pid(), libc::SIGTERM);
            let limit = self.config.get("term_timeout").and_then(Json::number);
            self.kill_at = Some(now + limit.map_or(TERM_TIMEOUT, |s| Duration::from_secs(s.max(0) as u64)));
        }
        self.halting = true;
    }

    /// Handles the exit of its process. Returns a line for the log.
    pub fn ended(&mut self, code: i32, closing: bool, now: Instant) -> Option<String> {
        let (_, since) = self.process.take()?;
        self.exit_code = Some(code);
        self.kill_at = None;
        if let Some(path) = self.config.get("pidfile").and_then(Json::text) {
            let _ = fs::remove_file(&*path);
        }
        if self.halting {
            if self.again {
                (self.halting, self.again) = (false, false);
                self.start_at = Some(now);
            }
            return None;
        }
        let respawn = self.respawn.as_mut().filter(|_| !closing)?;
        let ran = now.saturating_duration_since(since);
        match respawn.ended(ran) {
            Some(pause) => {
                self.start_at = Some(now + pause);
                None
            }
            None => {
                Some(format!("is in a crash loop, it ran for {} s and is not started again", ran.as_secs()))
            }
        }
    }

    pub fn start(&mut self, service: &str, now: Instant) -> io::Result<Vec<Output>> {
        let words: Vec<String> = self.strings("command").collect();
        let mut command = spawn::command(&words, spawn::PATH);
        let on = |name| self.config.get(name).is_some_and(Json::truth);
        let (stdout, stderr) = (on("stdout"), on("stderr"));
        if stdout {
            command.env("LD_PRELOAD", "/lib/libsetlbf.so");
        }
        for (name, value) in self.config.get("env").into_iter().flat_map(Json::members) {
            command.env(name, &*value.text().unwrap_or_default());
        }
        let pipe = |wanted| if wanted { Stdio::piped() } else { Stdio::null() };
        command.stdout(pipe(stdout)).stderr(pipe(stderr));
        if let Some((uid, gid)) = self.config.get("user").and_then(Json::text).as_deref().and_then(user) {
            command.uid(uid).gid(gid);
        }
        spawn::prepare(&mut command, self.limits(), self.number("nice").unwrap_or(0) as i32);
        let mut child = command.spawn()?;
        let pid = child.id();
        self.process = Some((pid, now));
        self.exit_code = None;
        if let Some(path) = self.config.get("pidfile").and_then(Json::text) {
            let _ = fs::write(&*path, format!("{pid}\n"));
        }
        if let Some(group) = control_group(service, &self.name) {
            let _ = fs::write(group.join("cgroup.procs"), pid.to_string());
        }
        let program = words.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
        let tag = format!("{}[{pid}]", program.to_string_lossy());
        let output = |file: Option<OwnedFd>, error| file.map(|file| Output { file, tag: tag.clone(), error });
        Ok([
            output(child.stdout.take().map(OwnedFd::from), false),
            output(child.stderr.take().map(OwnedFd::from), true),
        ]
        .into_iter()
        .flatten()
        .collect())
    }

    pub fn strings(&self, name: &str) -> impl Iterator<Item = String> {
        let items = self.config.get(name).map_or(&[][..], Json::items);
        items.iter().filter_map(|item| item.text().map(Cow::into_owned))
    }

    pub fn number(&self, name: &str) -> Option<i64> {
        self.config.get(name)?.number()
    }

    pub fn limits(&self) -> Vec<(Resource, Rlimit)> {
        let limits = self.config.get("limits").into_iter().flat_map(Json::members);
        limits.filter_map(|(name, value)| limit(name, &value.text()?)).collect()
    }

    pub fn pid(&self) -> u32 {
        self.process.map_or(0, |(pid, _)| pid)
    }

    pub fn show(&self) -> Json {
        let mut shown = json!({
            "running": self.process.is_some(),
            "command": self.config.get("command").cloned().unwrap_or(json!([])),
            "term_timeout": self.number("term_timeout").unwrap_or(5),
        });
        if self.process.is_some() {
            shown["pid"] = self.pid().into();
        }
        if let Some(code) = self.exit_code {
            shown["exit_code"] = code.into();
        }
        if let Some(respawn) = &self.respawn {
            shown["respawn"] = json!({
                "threshold": respawn.threshold.as_secs(),
                "timeout": respawn.timeout.as_secs(),
                "retry": respawn.retry,
            });
        }
        for name in ["env", "data", "limits", "pidfile", "user"] {
            if let Some(value) = self.config.get(name) {
                shown[name] = value.clone();
            }
        }
        shown
    }
}

fn files(config: &Json) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in config.get("file").map_or(&[][..], Json::items).iter().filter_map(Json::text) {
        fs::read(&*path).unwrap_or_default().hash(&mut hasher);
    }
    hasher.finish()
}

/// `core="0"`, `nofile="1024 4096"`
fn limit(name: &str, value: &str) -> Option<(Resource, Rlimit)> {
    let resource = match name {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "memlock" => Resource::Memlock,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "stack" => Resource::Stack,
        _ => return None,
    };
    let mut values = value.split_whitespace().map(|word| word.parse().ok());
    let current = values.next().flatten();
    Some((resource, Rlimit { current, maximum: values.next().unwrap_or(current) }))
}

fn user(name: &str) -> Option<(u32, u32)> {
    let table = fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = table.lines().find(|line| line.split(':').next() == Some(name))?.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Makes the control group of an instance, where the kernel has a tree mounted.
fn control_group(service: &str, instance: &str) -> Option<PathBuf> {
    let root = Path::new(CGROUPS);
    if !root.join("cgroup.procs").exists() {
        return None;
    }
    let group = root.join("services").join(service).join(instance);
    fs::create_dir_all(&group).ok()?;
    Some(group)
}
