//! An enrolment under way: an agent is put where there is none, or this controller is added to one that is there.

use std::path::Path;

use hop_formats::size::Size;
use hop_proto::identity::{Fingerprint, Identity};

use super::connect::{self, Reached};
use super::layout::{BootMethod, Layout};
use super::shell::{REMOVE, STOP, Shell, Variables};
use super::stage::{random_name, send, try_out};
use super::survey::{Agent, Survey};
use super::{AUTHORIZE, EnrolRequest, Error, look, read_fingerprint};
use crate::client;
use crate::client::ssh::{RemoteMessage, quoted};
use crate::config::enrolment::{Asked, Persistence};
use crate::config::home::Home;
use crate::config::inventory::{Entry, Inventory, Router};
use crate::console::say;
use crate::console::signals::Interrupts;
use crate::program::embedded::Arch;
const PLACE: &str = include_str!("scripts/place.sh");
pub(super) const START: &str = include_str!("scripts/start.sh");
const INIT_SCRIPT: &str = include_str!("files/hopd.init");
const CONFIGURATION: &str = include_str!("files/hopd.config");
const START_SCRIPT: &str = include_str!("files/start");

/// One enrolment under way.
pub(super) struct Enrolment<'a> {
    pub(super) home: &'a Home,
    pub(super) name: &'a str,
    pub(super) request: &'a EnrolRequest,
    pub(super) identity: &'a Identity,
    pub(super) shell: &'a Shell,
}

impl Enrolment<'_> {
    pub(super) async fn run(&self) -> Result<Router, Error> {
        let survey = look(self.shell).await?;
        let [machine, system] = survey.describe();
        say!("hop: {}: {machine}", self.name);
        say!("hop: {}: {system}", self.name);
        let host = &self.request.ssh.host;
        let size = |arch: Arch| arch.agent().map_or(0, |agent| agent.len() as u64);
        let arch = survey.agent_for(size).map_err(|why| Error::Unsupported { host: host.clone(), why })?;
        if survey.is_guarded {
            return Err(Error::UnderWay { host: host.clone() });
        }
        survey.check_foreign(host)?;
        match survey.agents.first() {
            Some(agent) => self.join(agent, arch).await,
            None => self.place(&survey, arch).await,
        }
    }

    /// Puts an agent where there is none.
    async fn place(&self, survey: &Survey, arch: Arch) -> Result<Router, Error> {
        let agent = arch.agent()?;
        self.check_cache_dir(survey)?;
        let layout = self.choose(survey, agent.len() as u64)?;
        // The name is made here: a router need not have mktemp.
        let stage = format!("/tmp/hop-{}", random_name());
        let is_home = matches!(layout.boot_method, BootMethod::BootHook(_) | BootMethod::Nvram);
        let home = if is_home { layout.state.to_string_lossy() } else { "".into() };
        let guarded = Variables::default()
            .set("home", home)
            .set("new_cache_dir", self.request.cache_dir.as_deref().unwrap_or_default());
        let mut interrupts = listen()?;
        let guard = self.shell.guard(guarded, &stage, &[STOP, REMOVE]).await?;
        let placed = tokio::select! {
            placed = self.place_in(&stage, &layout, arch, &agent, survey) => placed,
            signal = interrupts.next() => Err(Error::Interrupted { signal }),
        };
        let remembered = placed.and_then(|router| self.remember(router));
        let cause = match remembered {
            Ok((router, before)) => {
                if guard.commit().await {
                    return Ok(router);
                }
                self.forget(before)?;
                return Err(client::Error::Lost { router: self.name.to_owned(), source: None }.into());
            }
            Err(cause) => cause,
        };
        match guard.undo().await {
            Ok(()) => Err(cause),
            Err(_) => {
                let (name, host) = (self.name.to_owned(), self.request.ssh.host.clone());
                Err(Error::NotUndone { cause: Box::new(cause), name, host })
            }
        }
    }

    fn check_cache_dir(&self, survey: &Survey) -> Result<(), Error> {
        self.request
            .cache_dir
            .as_ref()
            .map_or(Ok(()), |store| check_cache_dir(survey, &self.request.ssh.host, store))
    }

    /// The layout that the user has requested; without a request, an installation if flash has enough space for it.
    fn choose(&self, survey: &Survey, size: u64) -> Result<Layout, Error> {
        let install = || Layout::install(survey, &self.request.ssh.host, size);
        match self.request.persistence {
            Some(Persistence::Install) => install(),
            Some(Persistence::UntilReboot) => Ok(Layout::until_reboot()),
            None => Ok(install().unwrap_or_else(|why| {
                say!("hop: {}: {why}; so it is until the next reboot", self.name);
                Layout::until_reboot()
            })),
        }
    }

    async fn place_in(
        &self,
        stage: &str,
        layout: &Layout,
        arch: Arch,
        agent: &[u8],
        survey: &Survey,
    ) -> Result<Router, Error> {
        let version = env!("CARGO_PKG_VERSION");
        say!("hop: {}: sending hopd {version}, {}", self.name, Size(agent.len() as u64));
        send(self.shell, stage, agent).await?;
        try_out(self.shell, &self.request.ssh.host, stage, survey).await?;
        let interface = self.interface(&format!("{stage}/hopd"), stage).await?;
        let variables = self.variables(stage, layout, &interface);
        let placing = self.with_files(variables.clone(), layout, &interface);
        let said = self.shell.script("putting the agent in place", &placing, &[PLACE]).await?;
        let fingerprint = read_fingerprint(&said)?;
        self.shell.script("starting the agent", &variables, &[START]).await?;
        let reached = self.reach(&variables, layout, &interface, fingerprint, arch).await?;
        Ok(reached.router)
    }

    /// The interface on which the agent is to listen, by what an agent on the router at `program` says, which has its directory
    /// `state`; empty for the loopback alone.
    async fn interface(&self, program: &str, state: &str) -> Result<String, Error> {
        let host = || self.request.ssh.host.clone();
        if self.request.via_ssh {
            return Ok(String::new());
        }
        match self.request.listen_interface.as_deref() {
            Some("any") => Ok("any".to_owned()),
            Some(name) => {
                let command = format!("[ -e /sys/class/net/{name} ] || grep -q '^ *{name}:' /proc/net/dev");
                let is_there = self.shell.attempt(&command).await?;
                let unknown = || Error::NoInterface { host: host(), interface: name.to_owned() };
                is_there.status.success().then(|| name.to_owned()).ok_or_else(unknown)
            }
            None => {
                // Where the login came from is where connections will come from.
                let variables = Variables::default().set("program", program).set("state", state);
                let said = self.shell.ask("interface", &variables).await?;
                let name = String::from_utf8_lossy(&said.stdout).trim().to_owned();
                if !said.status.success() || name.is_empty() {
                    return Err(Error::UnknownInterface {
                        host: host(),
                        source: RemoteMessage::last_line(&said.stderr),
                    });
                }
                Ok(name)
            }
        }
    }

    /// Adds this controller to an agent that exists already, and starts the agent if it does not run.
    async fn join(&self, agent: &Agent, arch: Arch) -> Result<Router, Error> {
        let layout = Layout::of_existing(&agent.path);
        if self.request.persistence.is_some_and(|persistence| persistence != layout.persistence) {
            let (name, host) = (self.name.to_owned(), self.request.ssh.host.clone());
            return Err(Error::OtherWay { name, host, path: agent.path.clone() });
        }
        say!("hop: {}: an agent is there, at {}", self.name, agent.path.display());
        let own = self.identity.fingerprint();
        let interface =
            self.interface(&layout.program.to_string_lossy(), &layout.state.to_string_lossy()).await?;
        let variables = self.variables("/tmp/hop", &layout, &interface).set("fingerprint", own.to_string());
        let is_known = self.shell.ask("is-known", &variables).await?.status.success();
        let mut interrupts = listen()?;
        let joining = async {
            self.shell.script("adding this controller", &variables, &[AUTHORIZE]).await?;
            let said = self.shell.ask("fingerprint", &variables).await?;
            let fingerprint = read_fingerprint(&self.shell.succeeded("asking for its key", said)?)?;
            self.shell.script("starting the agent", &variables, &[START]).await?;
            let Reached { router, version } =
                self.reach(&variables, &layout, &interface, fingerprint, arch).await?;
            self.check_same_cache_dir(&variables).await?;
            if version != env!("CARGO_PKG_VERSION") {
                let own = env!("CARGO_PKG_VERSION");
                say!(
                    "hop: {}: it is hopd {version}, and `hop router upgrade` would make it {own}",
                    self.name
                );
            }
            self.remember(router).map(|(router, _)| router)
        };
        let joined = tokio::select! {
            joined = joining => joined,
            signal = interrupts.next() => Err(Error::Interrupted { signal }),
        };
        if joined.is_err() && !is_known {
            // hop reports the first failure; one of the cleanup would hide it.
            let off = variables.set("controller", "");
            let _ = self.shell.take_back("taking this controller off", &off, &[AUTHORIZE]).await;
        }
        joined
    }

    /// Checks the cache directory of an agent that others use as well: hop does not restart it with another one.
    async fn check_same_cache_dir(&self, variables: &Variables) -> Result<(), Error> {
        let Some(store) = &self.request.cache_dir else { return Ok(()) };
        let said = self.shell.ask("cache-dir", variables).await?.stdout;
        if String::from_utf8_lossy(&said).trim_end_matches('\n') == store {
            return Ok(());
        }
        let (name, host) = (self.name.to_owned(), self.request.ssh.host.clone());
        Err(Error::OtherCacheDir { name, host, cache_dir: store.clone() })
    }

    /// Where the agent listens.
    fn listen(&self) -> String {
        let address = if self.request.via_ssh { "127.0.0.1" } else { "0.0.0.0" };
        format!("{address}:{}", self.request.port)
    }

    /// The variables of the scripts.
    pub(super) fn variables(&self, stage: &str, layout: &Layout, interface: &str) -> Variables {
        let variables = Variables::default()
            .set("stage", stage)
            .set("starter", layout.boot_method.name())
            .set("way", if layout.persistence == Persistence::Install { "install" } else { "until-reboot" })
            .set("program", layout.program.to_string_lossy())
            .set("state", layout.state.to_string_lossy())
            .set("listen", self.listen())
            .set("cache_dir", self.request.cache_dir.as_deref().unwrap_or_default())
            .set("interface", interface)
            .set("controller", format!("{} {}", self.identity.fingerprint(), own_name()));
        match &layout.boot_method {
            BootMethod::None => variables,
            BootMethod::Procd { keep } => variables.set("keep", keep.to_string_lossy()),
            BootMethod::BootHook(hook) => variables
                .set("hook", hook.to_string_lossy())
                .set("hook_script", format!("#!/bin/sh\n{}", layout.hook_script())),
            BootMethod::Nvram => variables.set("hook_script", layout.hook_script()),
        }
    }

    /// The variables of the scripts, with the files that only a new installation needs.
    fn with_files(&self, variables: Variables, layout: &Layout, interface: &str) -> Variables {
        let (listen, store) = (self.listen(), self.request.cache_dir.as_deref().unwrap_or_default());
        match &layout.boot_method {
            BootMethod::None => variables,
            BootMethod::Procd { .. } => variables
                .set("init_script", INIT_SCRIPT)
                .set("config", configuration(&listen, interface, store)),
            BootMethod::BootHook(_) | BootMethod::Nvram => {
                let settings = format!(
                    "listen={}\ninterface={}\ncache_dir={}",
                    quoted(&listen),
                    quoted(interface),
                    quoted(store)
                );
                variables.set("start_script", START_SCRIPT).set("settings", settings)
            }
        }
    }

    /// Connects, and so makes sure of both keys.
    async fn reach(
        &self,
        variables: &Variables,
        layout: &Layout,
        interface: &str,
        fingerprint: Fingerprint,
        arch: Arch,
    ) -> Result<Reached, Error> {
        let goarch = arch.goarch();
        // An upgrade need not find it out again, by a login that may come from elsewhere.
        let listen_interface = Some(interface.to_owned()).filter(|interface| !interface.is_empty());
        let (request, shell) = (&EnrolRequest { listen_interface, ..self.request.clone() }, self.shell);
        let mut reached =
            connect::reach(self.name, request, variables, layout, fingerprint, goarch, self.identity, shell)
                .await?;
        if let Some(enrolment) = &mut reached.router.entry.enrolment {
            let EnrolRequest { persistence, via_ssh, listen_interface, .. } = self.request.clone();
            enrolment.asked = Some(Asked { persistence, via_ssh, listen_interface });
        }
        Ok(reached)
    }

    /// Writes the inventory, and returns the earlier entry of this name.
    fn remember(&self, router: Router) -> Result<(Router, Option<Entry>), Error> {
        let inventory = Inventory::new(self.home);
        let before = inventory.find(self.name)?.map(|router| router.entry);
        inventory.put(&router)?;
        Ok((router, before))
    }

    fn forget(&self, before: Option<Entry>) -> Result<(), Error> {
        let inventory = Inventory::new(self.home);
        match before {
            Some(entry) => inventory.put(&Router { name: self.name.to_owned(), entry })?,
            None => inventory.remove(self.name)?,
        }
        Ok(())
    }
}

/// Lets a signal undo the current enrolment, instead of killing this `hop` at once.
pub(super) fn listen() -> Result<Interrupts, Error> {
    Interrupts::listen().map_err(Error::io("handle", "signals".as_ref()))
}

/// Where the system itself is. A store there is one whose medium is missing.
const SYSTEM: [&str; 4] = ["/", "/overlay", "/usr/local", "/etc"];

/// A store in RAM would not survive what it is for, and one on the system's own flash would fill that up. Where a medium
/// is missing, there is the one or the other.
pub(super) fn check_cache_dir(survey: &Survey, host: &str, store: &str) -> Result<(), Error> {
    let Some(mount) = survey.mount_of(Path::new(store)) else { return Ok(()) };
    let (host, store, place) = (host.to_owned(), store.to_owned(), mount.place.clone());
    match survey.backing(mount) {
        None => Err(Error::CacheDirInRam { host, cache_dir: store, place }),
        Some(flash) if flash.is_flash() && SYSTEM.iter().any(|system| place == Path::new(system)) => {
            Err(Error::CacheDirInFlash { host, cache_dir: store, place })
        }
        Some(_) => Ok(()),
    }
}

/// `/etc/config/hopd`, without the options that have no value. The package for OpenWrt has it from the same file.
fn configuration(listen: &str, interface: &str, cache_dir: &str) -> String {
    let values = [("LISTEN", listen), ("DEVICE", interface), ("CACHE_DIR", cache_dir)];
    let filled = |line: &str| match values.iter().find(|(name, _)| line.contains(&format!("'{name}'"))) {
        Some((_, "")) => None,
        Some((name, value)) => Some(line.replace(name, value)),
        None => Some(line.to_owned()),
    };
    CONFIGURATION.lines().filter_map(filled).collect::<Vec<_>>().join("\n")
}

/// The comment on this controller's key in the router's list: `user@host`.
fn own_name() -> String {
    let user =
        std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "hop".to_owned());
    format!("{user}@{}", rustix::system::uname().nodename().to_string_lossy()).replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Output, Stdio};

    use super::*;

    #[test]
    fn configuration_omits_options_without_value() {
        let short = "config hopd 'main'\n\toption listen '0.0.0.0:4670'\n\toption dir '/tmp/hop'";
        assert_eq!(configuration("0.0.0.0:4670", "", ""), short);
        let long = format!("{short}\n\toption device 'br-lan'\n\toption cache_dir '/mnt/sda1/hop'");
        assert_eq!(configuration("0.0.0.0:4670", "br-lan", "/mnt/sda1/hop"), long);
    }

    /// Runs a script with programs of these names in front of the others.
    fn run_with(programs: &[(&str, &str)], script: &str) -> Output {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in programs {
            let path = dir.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{content}\n")).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
        let mut sh = Command::new("sh");
        sh.arg("-s").env("PATH", path).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut sh = sh.spawn().unwrap();
        sh.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        sh.wait_with_output().unwrap()
    }

    #[test]
    fn overfull_nvram_takes_no_hook() {
        let start = START.replace("start </dev/null", "hook_script=x; hook_into_nvram </dev/null");
        let script = format!("{}{start}", crate::enrolment::shell::OWNERSHIP);
        let left = |bytes: &str| {
            // Like DD-WRT's: it always succeeds, and prints the bytes left to standard error.
            let nvram = format!(
                "case $1 in show) echo 'size: 33000 bytes ({bytes} left)' >&2 ;; set) echo \"$2\" >\"$0.set\" ;;\n\
                 get) sed 's/^rc_startup=//' \"$0.set\" 2>/dev/null ;; esac; true"
            );
            let ran = run_with(&[("nvram", &nvram)], &script);
            (ran.status.success(), String::from_utf8(ran.stderr).unwrap())
        };
        assert_eq!(left("-232"), (false, "nvram has only -232 bytes left\n".to_owned()));
        assert_eq!(left("2000"), (false, "nvram has only 2000 bytes left\n".to_owned()));
        assert_eq!(left("30000"), (true, String::new()));
    }

    #[test]
    fn reported_log_line_is_of_last_process() {
        let logread = "cat <<'END'
Thu Jan  1 00:00:12 1970 daemon.err hopd[41]: error: cannot listen on 0.0.0.0:4670: Address in use
Thu Jan  1 00:00:17 1970 daemon.info hopd[52]: listening address=0.0.0.0:4670
Thu Jan  1 00:00:18 1970 daemon.err hopd[52]: error: cannot use the directory /tmp/hop: Read-only file system
Thu Jan  1 00:00:18 1970 daemon.info hopd[52]: stopping
Thu Jan  1 00:00:19 1970 daemon.info procd: hopd::instance1 ended
END";
        let words = |log: &str| {
            let script = format!("starter=procd\n{}\nlast_words", crate::enrolment::shell::STATE);
            String::from_utf8(run_with(&[("logread", log)], &script).stdout).unwrap()
        };
        assert_eq!(words(logread), "cannot use the directory /tmp/hop: Read-only file system\n");
        assert_eq!(words(&logread.replace("error: cannot use", "cannot use")), "stopping\n");
        assert_eq!(
            words(&logread.replace("hopd[52]: stopping", "hopd: error: no /usr/sbin/hopd")),
            "no /usr/sbin/hopd\n"
        );
        assert_eq!(words("true"), "it said nothing\n");
    }

    #[test]
    fn cache_dir_without_medium_is_refused() {
        let openwrt = "/dev/mtdblock1 /overlay jffs2 rw 0 0\noverlayfs:/overlay / overlay rw 0 0\n\
            tmpfs /tmp tmpfs rw 0 0\n/dev/sda1 /mnt/sda1 vfat rw 0 0\n";
        let extroot = openwrt.replace("/dev/mtdblock1 /overlay jffs2", "/dev/sdb1 /overlay ext4");
        let unmounted = openwrt.replace("/overlay jffs2", "/elsewhere jffs2");
        let refused = |mounts: &str, store: &str| {
            let survey = Survey::parse(format!("@mounts\n{mounts}@elf\n").as_bytes());
            check_cache_dir(&survey, "desk", store).err()
        };
        assert!(refused(openwrt, "/mnt/sda1/programs").is_none());
        assert!(matches!(refused(openwrt, "/tmp/programs"), Some(Error::CacheDirInRam { .. })));
        for missing in ["/mnt/sdb1/programs", "/overlay/programs"] {
            assert!(matches!(refused(openwrt, missing), Some(Error::CacheDirInFlash { .. })), "{missing}");
            assert!(refused(&extroot, missing).is_none(), "there is a stick below the whole system");
            assert!(matches!(refused(&unmounted, missing), Some(Error::CacheDirInRam { .. })), "{missing}");
        }
    }
}
