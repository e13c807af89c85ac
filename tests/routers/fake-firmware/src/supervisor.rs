//! procd's services: what was registered, the processes of it, and when the next one is to be started or killed.

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

use crate::json::{Blob, Json, json};
use crate::respawn::Respawn;
use crate::spawn;
use crate::ubus::Status;

/// Time between TERM and KILL, unless `term_timeout` says another.
const TERM_TIMEOUT: Duration = Duration::from_secs(5);
/// Where procd puts a service into a control group of its own, if there are any.
const CGROUPS: &str = "/sys/fs/cgroup";

/// The output of a service, to be logged line by line.
pub struct Output {
    pub file: OwnedFd,
    /// `NAME[PID]`
    pub tag: String,
    /// It was written to stderr.
    pub error: bool,
}

/// All services.
#[derive(Default)]
pub struct Supervisor {
    services: Vec<Service>,
    /// Outputs of processes that were started since they were taken last.
    outputs: Vec<Output>,
    /// What happened, for the log.
    events: Vec<String>,
    /// Scripts of triggers that were pulled, and when they are to run.
    pulled: Vec<(Instant, Vec<String>)>,
    /// Nothing is started again: the router goes down.
    closing: bool,
}

struct Service {
    name: String,
    instances: Vec<Instance>,
    data: Option<Json>,
    triggers: Option<Json>,
    /// Goes when its last process has.
    deleted: bool,
}

struct Instance {
    name: String,
    config: Json,
    /// Digest of the files that the configuration names.
    files: u64,
    respawn: Option<Respawn>,
    process: Option<(u32, Instant)>,
    exit_code: Option<i32>,
    start_at: Option<Instant>,
    kill_at: Option<Instant>,
    /// It was told to stop; then it goes, or starts again with another configuration.
    halting: bool,
    again: bool,
}

impl Supervisor {
    /// Answers a call of the object `service`.
    pub fn call(&mut self, method: &str, message: &Json, now: Instant) -> Result<Option<Json>, Status> {
        let name = message.get("name").and_then(Json::text);
        let name = name.as_deref();
        match method {
            "set" | "add" => {
                self.set(name.ok_or(Status::InvalidArgument)?, message, method == "add", now);
                Ok(None)
            }
            "delete" => {
                let instance = message.get("instance").and_then(Json::text);
                self.delete(name.ok_or(Status::InvalidArgument)?, instance.as_deref(), now).map(|()| None)
            }
            "list" => Ok(Some(self.list(name))),
            "signal" => {
                let number = message.get("signal").and_then(Json::number).unwrap_or(i64::from(libc::SIGHUP));
                self.signal(name.ok_or(Status::InvalidArgument)?, number).map(|()| None)
            }
            "event" => {
                self.pull_triggers(message, now);
                Ok(None)
            }
            "state" | "update_start" | "update_complete" => Ok(None),
            _ => Err(Status::MethodNotFound),
        }
    }

    /// An event such as `config.change`, with its data: each trigger for it runs its script after its delay. One that was
    /// pulled already waits anew.
    fn pull_triggers(&mut self, message: &Json, now: Instant) {
        let kind = message.get("type").and_then(Json::text).unwrap_or_default();
        let data = message.get("data").unwrap_or(&Json::Null);
        let triggers = self.services.iter().filter_map(|service| service.triggers.as_ref());
        for trigger in triggers.flat_map(Json::items) {
            let [event, action, rest @ ..] = trigger.items() else { continue };
            let matches = event.text().is_some_and(|event| match event.strip_suffix(".*") {
                Some(prefix) => kind.starts_with(prefix),
                None => kind == event,
            });
            if let Some(script) = script(action, data).filter(|_| matches) {
                let delay = rest.first().and_then(Json::number).unwrap_or(1000).max(0);
                self.pulled.retain(|(_, pulled)| *pulled != script);
                self.pulled.push((now + Duration::from_millis(delay as u64), script));
            }
        }
    }

    fn find(&mut self, name: &str) -> Result<&mut Service, Status> {
        self.services
            .iter_mut()
            .find(|service| service.name == name && !service.deleted)
            .ok_or(Status::NotFound)
    }

    fn set(&mut self, name: &str, message: &Json, add: bool, now: Instant) {
        let index = self.services.iter().position(|service| service.name == name).unwrap_or_else(|| {
            self.services.push(Service {
                name: name.to_owned(),
                instances: Vec::new(),
                data: None,
                triggers: None,
                deleted: false,
            });
            self.services.len() - 1
        });
        let service = &mut self.services[index];
        service.deleted = false;
        service.data = message.get("data").cloned();
        service.triggers = message.get("triggers").cloned();
        let wanted: Vec<_> = message.get("instances").into_iter().flat_map(Json::members).collect();
        if !add {
            let unwanted = |instance: &&mut Instance| !wanted.iter().any(|(name, _)| **name == instance.name);
            service.instances.iter_mut().filter(unwanted).for_each(|instance| instance.stop(now));
        }
        for (name, config) in wanted {
            match service.instances.iter_mut().find(|instance| instance.name == *name) {
                Some(instance) => instance.update(config, now),
                None => service.instances.push(Instance::new(name, config, now)),
            }
        }
        self.tick(now);
    }

    fn delete(&mut self, name: &str, instance: Option<&str>, now: Instant) -> Result<(), Status> {
        let service = self.find(name)?;
        if let Some(wanted) = instance {
            let found = service.instances.iter_mut().find(|instance| instance.name == wanted);
            found.ok_or(Status::NotFound)?.stop(now);
        } else {
            service.instances.iter_mut().for_each(|instance| instance.stop(now));
            service.deleted = true;
        }
        self.tick(now);
        Ok(())
    }

    fn signal(&mut self, name: &str, number: i64) -> Result<(), Status> {
        for instance in &self.find(name)?.instances {
            spawn::signal(instance.pid(), number as i32);
        }
        Ok(())
    }

    fn list(&self, wanted: Option<&str>) -> Json {
        let shown = self.services.iter().filter(|service| wanted.is_none_or(|name| name == service.name));
        shown.map(|service| (service.name.clone(), service.show())).collect()
    }

    /// A child of PID 1 has ended; perhaps it is one of these.
    pub fn ended(&mut self, pid: u32, code: i32, now: Instant) {
        for service in &mut self.services {
            for instance in service.instances.iter_mut().filter(|instance| instance.pid() == pid) {
                if let Some(event) = instance.ended(code, self.closing, now) {
                    self.events.push(format!("{}::{} {event}", service.name, instance.name));
                }
            }
        }
        self.tick(now);
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        for (_, script) in self.pulled.extract_if(.., |(at, _)| *at <= now && !self.closing) {
            if let Err(error) = spawn::command(&script, spawn::PATH).spawn() {
                self.events.push(format!("{}: {error}", script.join(" ")));
            }
        }
        let due = |time: &Option<Instant>| time.is_some_and(|time| time <= now);
        for service in &mut self.services {
            for instance in &mut service.instances {
                if due(&instance.kill_at) {
                    instance.kill_at = None;
                    self.events.push(format!(
                        "{}::{} does not end on SIGTERM: SIGKILL",
                        service.name, instance.name
                    ));
                    spawn::signal(instance.pid(), libc::SIGKILL);
                }
                if due(&instance.start_at) && !self.closing {
                    instance.start_at = None;
                    match instance.start(&service.name, now) {
                        Ok(outputs) => self.outputs.extend(outputs),
                        Err(error) => {
                            self.events.push(format!("{}::{}: {error}", service.name, instance.name));
                            // As procd, whose child ends before it has become the program.
                            instance.process = Some((0, now));
                            instance.ended(127, self.closing, now);
                        }
                    }
                }
            }
            service.instances.retain(|instance| {
                !instance.halting || instance.process.is_some() || instance.start_at.is_some()
            });
        }
        self.services.retain(|service| !service.deleted || !service.instances.is_empty());
    }

    /// When `tick` is needed next.
    pub fn next(&self) -> Option<Instant> {
        let instances = self.services.iter().flat_map(|service| &service.instances);
        instances
            .flat_map(|instance| [instance.kill_at, instance.start_at.filter(|_| !self.closing)])
            .flatten()
            .chain(self.pulled.iter().map(|(at, _)| *at).filter(|_| !self.closing))
            .min()
    }

    /// Nothing starts again from now on.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// Outputs of new processes, and what happened.
    pub fn take(&mut self) -> (Vec<Output>, Vec<String>) {
        (std::mem::take(&mut self.outputs), std::mem::take(&mut self.events))
    }
}

impl Service {
    fn show(&self) -> Json {
        let mut members = serde_json::Map::new();
        if !self.instances.is_empty() {
            let instances = self.instances.iter().map(|instance| (instance.name.clone(), instance.show()));
            members.insert("instances".to_owned(), instances.collect());
        }
        for (name, value) in [("triggers", &self.triggers), ("data", &self.data)] {
            if let Some(value) = value
                && !(value.items().is_empty() && value.members().next().is_none())
            {
                members.insert(name.to_owned(), value.clone());
            }
        }
        members.into()
    }
}

impl Instance {
    fn new(name: &str, config: &Json, now: Instant) -> Self {
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

    fn configure(&mut self, config: &Json) {
        self.files = files(config);
        self.config = config.clone();
        self.respawn = config
            .get("respawn")
            .map(|values| Respawn::new(&values.items().iter().filter_map(Json::number).collect::<Vec<_>>()));
    }

    /// What is equal and runs stays; what is not is restarted, or told by its reload signal.
    fn update(&mut self, config: &Json, now: Instant) {
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

    fn stop(&mut self, now: Instant) {
        self.start_at = None;
        self.again = false;
        if self.process.is_some() && !self.halting {
            spawn::signal(self.pid(), libc::SIGTERM);
            let limit = self.config.get("term_timeout").and_then(Json::number);
            self.kill_at = Some(now + limit.map_or(TERM_TIMEOUT, |s| Duration::from_secs(s.max(0) as u64)));
        }
        self.halting = true;
    }

    /// Its process has ended. Says what is worth logging.
    fn ended(&mut self, code: i32, closing: bool, now: Instant) -> Option<String> {
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

    fn start(&mut self, service: &str, now: Instant) -> io::Result<Vec<Output>> {
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

    fn strings(&self, name: &str) -> impl Iterator<Item = String> {
        let items = self.config.get(name).map_or(&[][..], Json::items);
        items.iter().filter_map(|item| item.text().map(Cow::into_owned))
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.config.get(name)?.number()
    }

    fn limits(&self) -> Vec<(Resource, Rlimit)> {
        let limits = self.config.get("limits").into_iter().flat_map(Json::members);
        limits.filter_map(|(name, value)| limit(name, &value.text()?)).collect()
    }

    fn pid(&self) -> u32 {
        self.process.map_or(0, |(pid, _)| pid)
    }

    fn show(&self) -> Json {
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

/// The script of a trigger's action, `["if", ["eq", NAME, VALUE], ["run_script", SCRIPT, VERB]]`, if its condition holds.
fn script(action: &Json, data: &Json) -> Option<Vec<String>> {
    let (verb, rest) = action.items().split_first()?;
    match (&*verb.text()?, rest) {
        ("if", [condition, then, ..]) => {
            let [relation, name, value] = condition.items() else { return None };
            let holds = relation.text().as_deref() == Some("eq") && data.get(&*name.text()?) == Some(value);
            holds.then(|| script(then, data)).flatten()
        }
        ("run_script", words) => words.iter().map(|word| word.text().map(Cow::into_owned)).collect(),
        _ => None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn message(instances: &str) -> Json {
        json::parse(&format!(r#"{{"name":"x","instances":{instances}}}"#)).expect("JSON")
    }

    fn instance(supervisor: &Supervisor) -> Json {
        let list = supervisor.list(Some("x"));
        list.get("x").and_then(|x| x.get("instances")?.get("i").cloned()).unwrap_or(Json::Null)
    }

    fn pid(supervisor: &Supervisor) -> u32 {
        instance(supervisor).get("pid").and_then(Json::number).unwrap_or(0) as u32
    }

    const SLEEP: &str = r#"{"i":{"command":["sleep","60"],"respawn":["3600","1","1"]}}"#;

    #[test]
    fn an_equal_set_leaves_the_process_alone_and_a_changed_one_restarts_it() {
        let (mut supervisor, now) = (Supervisor::default(), Instant::now());
        supervisor.call("set", &message(SLEEP), now).expect("set");
        let first = pid(&supervisor);
        assert!(first > 0);
        supervisor.call("set", &message(SLEEP), now).expect("set");
        assert_eq!(pid(&supervisor), first);
        supervisor.call("set", &message(&SLEEP.replace("60", "61")), now).expect("set");
        supervisor.ended(first, 143, now);
        let second = pid(&supervisor);
        assert!(second > 0 && second != first);
        supervisor.call("delete", &message("{}"), now).expect("delete");
        assert!(supervisor.next().is_some(), "KILL follows");
        supervisor.ended(second, 143, now);
        assert_eq!(supervisor.list(None), json!({}));
        assert_eq!(supervisor.call("delete", &message("{}"), now), Err(Status::NotFound));
    }

    #[test]
    fn a_crash_loop_ends_down_and_a_start_brings_it_back() {
        let (mut supervisor, mut now) = (Supervisor::default(), Instant::now());
        supervisor.call("set", &message(SLEEP), now).expect("set");
        for _ in 0..2 {
            spawn::signal(pid(&supervisor), libc::SIGKILL);
            supervisor.ended(pid(&supervisor), 0, now);
            now += Duration::from_secs(1);
            supervisor.tick(now);
        }
        assert_eq!(instance(&supervisor).get("running"), Some(&Json::Bool(false)));
        assert_eq!(supervisor.take().1.len(), 1, "the crash loop is said once");
        supervisor.call("set", &message(SLEEP), now).expect("set");
        assert!(pid(&supervisor) > 0);
        spawn::signal(pid(&supervisor), libc::SIGKILL);
    }

    #[test]
    fn config_change_runs_its_trigger() {
        let (mut supervisor, now) = (Supervisor::default(), Instant::now());
        let triggers =
            r#"[["config.change",["if",["eq","package","x"],["run_script","true","reload"]],1000]]"#;
        let message = format!(r#"{{"name":"x","instances":{{}},"triggers":{triggers}}}"#);
        supervisor.call("set", &json::parse(&message).expect("JSON"), now).expect("set");
        let event = |package: &str| {
            let text = format!(r#"{{"type":"config.change","data":{{"package":"{package}"}}}}"#);
            json::parse(&text).expect("JSON")
        };
        supervisor.call("event", &event("network"), now).expect("event");
        assert_eq!(supervisor.next(), None);
        for _ in 0..2 {
            supervisor.call("event", &event("x"), now).expect("event");
        }
        let due = supervisor.next().expect("it waits a second");
        assert_eq!((due - now, supervisor.pulled.len()), (Duration::from_secs(1), 1));
        assert_eq!(supervisor.pulled[0].1, ["true", "reload"]);
        supervisor.tick(due);
        assert_eq!(supervisor.next(), None);
    }

    #[test]
    fn what_cannot_be_executed_is_down_with_127() {
        let (mut supervisor, now) = (Supervisor::default(), Instant::now());
        supervisor.call("set", &message(r#"{"i":{"command":["/nowhere"]}}"#), now).expect("set");
        assert_eq!(instance(&supervisor).get("exit_code").and_then(Json::number), Some(127));
    }
}
