//! `hop info`.

use std::time::Duration;

use hop_formats::size::Size;
use hop_proto::v1::{Containment, GetInfoResponse};
use serde::Serialize;

use super::Error;
use super::connect;
use crate::cli;
use crate::client::connection::Connection;
use crate::config::home::Home;
use crate::config::inventory::Inventory;
use crate::console::exit_code::ExitCode;
use crate::console::printable::printable;
use crate::console::wrap::hanging;
use crate::golang::build::goarch;
use crate::program::target_of;
use crate::virtual_router::{self, Isolation};

/// A router's properties, under names that `docs/specification.md` promises.
#[derive(Default, Serialize)]
struct Facts {
    router: String,
    address: String,
    fingerprint: String,
    /// Where the agent listens, as text that the agent has formatted.
    listens: String,
    agent_version: String,
    capabilities: Vec<String>,
    goarch: Option<&'static str>,
    machine: String,
    cpu: String,
    hostname: String,
    firmware: String,
    kernel: String,
    boot_id: String,
    uptime_ms: u64,
    memory_total: u64,
    memory_available: u64,
    memory_reserve: u64,
    memory_bound_by_promises: bool,
    store_directory: String,
    store_free: u64,
    store_kept: u64,
    store_executable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    store_inodes_total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store_inodes_available: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store_inodes_reserve: Option<u64>,
    /// The disk cache with which this controller enrolled it.
    cache_dir: Option<String>,
    jobs: u32,
    max_jobs: u32,
    containment: &'static str,
    /// Of an agent under qemu-user: whether its programs have a root file system of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<bool>,
}

/// Asks the router and prints what it says.
pub async fn info(home: &Home, mut options: cli::Info) -> Result<ExitCode, Error> {
    options.router.router = options.name.or(options.router.router);
    let (connection, info) = connect(home, &options.router).await?;
    let router = Inventory::new(home).get(connection.router())?;
    let isolation = virtual_router::isolation(&router);
    let facts = Facts {
        sandbox: isolation.map(|it| it == Isolation::Sandbox),
        cache_dir: router.entry.enrolment.and_then(|enrolment| enrolment.cache_dir),
        ..Facts::new(&connection, info)
    };
    if options.json {
        super::print_json(&facts)?;
    } else {
        super::print(&facts.text())?;
    }
    Ok(ExitCode::Program(0))
}

impl Facts {
    fn new(connection: &Connection, info: GetInfoResponse) -> Self {
        let target = target_of(&info);
        let memory = info.memory.unwrap_or_default();
        let store = info.store.unwrap_or_default();
        Self {
            router: connection.router().to_owned(),
            address: connection.address().to_owned(),
            fingerprint: connection.fingerprint().to_string(),
            listens: info.listens,
            agent_version: info.agent_version,
            capabilities: info.capabilities,
            goarch: target.and_then(goarch),
            machine: target.map(|target| target.to_string()).unwrap_or_default(),
            cpu: info.cpu,
            hostname: info.hostname,
            firmware: info.firmware,
            kernel: info.kernel,
            boot_id: info.boot_id,
            uptime_ms: info.uptime_ms,
            memory_total: memory.total,
            memory_available: memory.available,
            memory_reserve: memory.reserve,
            memory_bound_by_promises: memory.bound_by_promises,
            store_directory: store.directory,
            store_free: store.free,
            store_kept: store.reclaimable,
            store_executable: store.executable,
            store_inodes_total: store.inodes.map(|inodes| inodes.total),
            store_inodes_available: store.inodes.map(|inodes| inodes.available),
            store_inodes_reserve: store.inodes.map(|inodes| inodes.reserve),
            cache_dir: None,
            jobs: info.jobs,
            max_jobs: info.max_jobs,
            containment: match Containment::try_from(info.containment) {
                Ok(Containment::Cgroup) => "cgroup",
                Ok(Containment::Descendants) => "descendants",
                // An agent that does not say so is one that does not.
                _ => "group",
            },
            sandbox: None,
        }
    }

    fn text(&self) -> String {
        let uptime = Duration::from_secs(self.uptime_ms / 1000);
        let promises = match self.memory_bound_by_promises {
            true => "; RAM is there for more, but vm.overcommit_memory is 2",
            false => "",
        };
        let executable = if self.store_executable { "" } else { ", NOEXEC: nothing can run there" };
        let mut lines = vec![
            ("router", format!("{} at {}", self.router, self.address)),
            ("fingerprint", self.fingerprint.clone()),
            ("agent", format!("hopd {}, can {}", self.agent_version, self.capabilities.join(", "))),
            ("listens", self.listens.clone()),
            ("machine", format!("{} (GOARCH={})", self.machine, self.goarch.unwrap_or("none"))),
            ("cpu", self.cpu.clone()),
            ("hostname", self.hostname.clone()),
            ("firmware", self.firmware.clone()),
            ("kernel", self.kernel.clone()),
            ("up", humantime::format_duration(uptime).to_string()),
            (
                "memory",
                format!(
                    "{} available of {}, {} of them kept free{promises}",
                    Size(self.memory_available),
                    Size(self.memory_total),
                    Size(self.memory_reserve)
                ),
            ),
            (
                "store",
                format!(
                    "{} free in {}, {} of them for programs that may run again{executable}",
                    Size(self.store_free),
                    self.store_directory,
                    Size(self.store_kept)
                ),
            ),
            ("disk cache", self.cache_dir.clone().unwrap_or_default()),
            ("jobs", format!("{} of at most {}", self.jobs, self.max_jobs)),
            (
                "containment",
                match self.containment {
                    "cgroup" => {
                        "the agent kills all descendants of a program when it exits, by a cgroup".to_owned()
                    }
                    "descendants" => "the agent kills all descendants of a program when it exits".to_owned(),
                    _ => "the agent kills only the process group of a program when it exits".to_owned(),
                },
            ),
        ];
        if let (Some(total), Some(available), Some(reserve)) =
            (self.store_inodes_total, self.store_inodes_available, self.store_inodes_reserve)
        {
            let line = format!("{available} available of {total}, {reserve} of them kept free");
            // Below the store: they are the inodes of its file system.
            let place = lines.iter().position(|(name, _)| *name == "disk cache").unwrap_or(lines.len());
            lines.insert(place, ("inodes", line));
        }
        if let Some(sandbox) = self.sandbox {
            let text = match sandbox {
                true => "programs have a root of their own; they share this machine's network",
                false => "none: programs have your rights and files on this machine",
            };
            lines.push(("sandbox", text.to_owned()));
        }
        lines.retain(|(_, value)| !value.is_empty());
        // Text of the router stays on its line.
        lines
            .iter()
            .map(|(name, value)| hanging(&format!("{name:<12} {}", printable(value)), 13))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_cache_has_a_line_of_its_own() {
        let line = |cache_dir: Option<&str>| {
            let facts = Facts { cache_dir: cache_dir.map(str::to_owned), ..Facts::default() };
            facts.text().lines().find(|line| line.starts_with("disk cache")).map(str::to_owned)
        };
        assert_eq!(line(Some("/mnt/sda1/hop")).as_deref(), Some("disk cache   /mnt/sda1/hop"));
        assert_eq!(line(None), None);
    }

    #[test]
    fn router_facts_are_escaped() {
        let nasty = "x\u{1b}]0;title\u{7}\nfingerprint  SHA256:ff".to_owned();
        let facts = Facts { hostname: nasty.clone(), kernel: nasty, ..Facts::default() };
        let text = facts.text();
        assert!(!text.contains('\u{1b}'), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("fingerprint")).count(), 0, "{text}");
        assert!(text.contains("hostname     x\\u{1b}]0;title\\u{7}\\nfingerprint"), "{text}");
    }
}
